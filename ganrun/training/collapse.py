"""Detection of a collapsed game by fixed rules over the metrics of a tick.

A symptom is reported once its rule was true at TICKS consecutive ticks. The rules do not depend on the data:

    discriminator_saturated   0 <= loss < 0.02 and the mean logit of real images exceeds that of fake ones: the
                              cross-entropy, least-squares and hinge losses vanish where the discriminator separates
                              all images and has no gradient left. (A critic's loss falls below 0 as it learns.)
    discriminator_winning     r = E sign(D(x)) over real images exceeds 0.98: D knows 99 of 100 of them, because it
                              learns too fast or has learnt them by heart, and what it tells the generator says little
                              of what is real. ADA (arXiv:2006.06676, eq. 1) keeps r at 0.6. Critics and relativistic
                              losses have no r.
    gradient_vanished         a player's gradient norm is below 1e-6
    gradient_exploded         a player's gradient norm is above 1e4
"""

from collections.abc import Mapping

from ganrun.telemetry.series import GRADIENT_NORM, LOGIT, LOGIT_SIGN, LOSS
from ganrun.telemetry.symptoms import ADVICE

TICKS = 5
SATURATED_LOSS, WINNING_SIGN, VANISHED_NORM, EXPLODED_NORM = 0.02, 0.98, 1e-6, 1e4


class CollapseDetector:
    """Counter of consecutive ticks with each symptom; the same on all workers."""

    def __init__(self) -> None:
        self.streaks = dict.fromkeys(ADVICE, 0)
        """Number of consecutive ticks at which each rule was true."""

    def update(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """Count a tick with these metrics. Return the symptoms that now last for TICKS ticks."""
        norms = [value for name, value in values.items() if name.startswith(GRADIENT_NORM.prefix)]
        now = {
            "discriminator_saturated": _saturated(values),
            "discriminator_winning": values.get(LOGIT_SIGN.of("real"), 0.0) > WINNING_SIGN,
            "gradient_vanished": any(norm < VANISHED_NORM for norm in norms),
            "gradient_exploded": any(norm > EXPLODED_NORM for norm in norms),
        }
        self.streaks = {symptom: self.streaks[symptom] + 1 if true else 0 for symptom, true in now.items()}
        return tuple(symptom for symptom, streak in self.streaks.items() if streak >= TICKS)

    def state_dict(self) -> dict[str, int]:
        """Return a copy of the streaks."""
        return dict(self.streaks)

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Load streaks; a symptom that the state does not name keeps its own."""
        self.streaks |= state_dict


def _saturated(values: Mapping[str, float]) -> bool:
    loss, real, fake = map(values.get, (LOSS.of("discriminator"), LOGIT.of("real"), LOGIT.of("fake")))
    if loss is None or real is None or fake is None:
        return False
    return 0 <= loss < SATURATED_LOSS and real > fake
