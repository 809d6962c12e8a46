"""CMPAGL: a global-local window transformer, a BERT in two halves, and alignment before fusion."""
