"""Names of the values that built-in scores return, and which direction is better."""

HORIZONS = 16
"""Most horizons of a roll-out that scores look at."""
OF_HORIZONS = tuple(f"{name}_{horizon}" for horizon in range(1, HORIZONS + 1) for name in ("psnr", "ssim"))
"""Values of the score `horizons`: of the frame that a roll-out has at each horizon."""

DIVERGENCES = ("kl", "reverse_kl", "jensen_shannon")
"""Scores that compare the density of generated points with that of a known mixture."""
OF_GAMES = ("duality_gap", *DIVERGENCES)
"""Scores that say how far a game is from its equilibrium."""
HIGHER_IS_BETTER = {
    "kid": False,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
    "inception_score": True,
    "class_frechet_distance": False,
    "classes_hit": True,
    "memorisation": False,
    "modes_covered": True,
    "mode_kl": False,
    "high_quality_share": True,
    "distance": False,
    "bits_per_dimension": False,
    **dict.fromkeys(OF_GAMES, False),
    "l1": False,
    "psnr": True,
    "ssim": True,
    "lpips": False,
    "l1_hole": False,
    "psnr_hole": True,
    **dict.fromkeys(OF_HORIZONS, True),
    "rmse": False,
    "matching": True,
    "colour_words": True,
}
"""Direction of the values that built-in scores return. `distance` is the Fréchet distance, or the mode distance."""

OF_HOLES = ("l1_hole", "psnr_hole")
"""Scores of the holes of objective.condition: masked."""
OF_POINTS = ("rmse",)
"""Scores of the missing numbers of points with objective.condition: masked."""
OF_TEXT = ("matching", "colour_words")
"""Scores of pictures of sentences, with objective.condition: text."""
PAIRED = ("l1", "psnr", "ssim", "lpips", *OF_HOLES, *OF_HORIZONS, *OF_POINTS)
"""Values that compare a generated image with the real one that belongs to it."""
