"""Names that the config may ask for in its section `cluster`, apart from the code that takes seconds to import."""

METHODS = ("hdbscan", "kmeans", "ward", "spectral", "gmm", "student", "laplace", "vmf", "dpgmm")
KNOWN = "known"  # the corpus's own groups in place of clusters
LEVELS = ("speaker", "voice", "utterance")  # what is a point
MATCHES = ("split", "shrink")  # what is done where there are fewer clusters than experts
NOISE_POLICIES = ("drop", "soft", "uniform", "nearest")  # what becomes of points in no cluster
PLANES = ("pca", "lda", "tsne")  # of the picture
