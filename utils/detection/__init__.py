"""What detect_img.py and detect_video.py do with pictures and frames."""
