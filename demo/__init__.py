"""The Gradio demo: what the model sees in a video or a webcam, in a browser."""
