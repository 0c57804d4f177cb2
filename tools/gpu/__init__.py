"""The steps of `tools.check_gpu`: does this project work on this graphics card, and how fast?"""
