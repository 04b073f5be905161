"""Models that leave the machine and come to it: what is shared of a run or an export, and Hugging Face's hub.

What comes from elsewhere is hostile until it has been read: only files of names that tfvae writes are taken, none of
them is run or unpickled, and one that would run code later is refused.
"""
