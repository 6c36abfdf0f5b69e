from . import command, predictor, recording
from .command import describe_training, newest_model, predict_files, save_timeline, summary_table
from .predictor import Attention, Prediction, Predictor, open_predictor
from .recording import Notice, Recording, to_dbfs, window_length
