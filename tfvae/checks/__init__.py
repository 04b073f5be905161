"""A SavedModel judged from outside: its graph read as a file, then run in the C++ runtime beside Python's.

No room of the model's is imported here, nor Keras or TFP: what is checked is what a server would load.
"""
