"""Reading, checking, augmenting and splitting image/mask data sets, and the embedded demo sets."""
