"""The notebooks in a real browser: JupyterLab on loopback, and the Chromium of this machine."""
