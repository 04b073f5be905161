"""K optimiser steps as one program, behind Keras's own ``fit``. It knows no probability."""
