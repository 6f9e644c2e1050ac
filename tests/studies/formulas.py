"""THE test table of the open-loop schedules: for each type its formula in plain Python, written from its source.

Nothing here knows the models. Whoever adds a schedule adds a line to `CASES`; its curve, its rates as applied
by Keras and its road through service and worker are then tested with those of all the others.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from fractions import Fraction

from hypothesis import strategies as st

from tests.studies.case import ALPHA, STAIRS, Case, Ratio, decimal, half_wave, over_decades, progress, tidy
from tests.studies.monotone_cubic import monotone_cubic

# --- decays


def constant() -> Ratio:
    return lambda step, total, per_epoch: 1.0


def step_decay(factor: float, drops: int, every: int) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        epoch, epochs = step // per_epoch, Fraction(total, per_epoch)
        if every > 0:
            return float(factor ** (epoch // every))
        return float(factor ** min(math.floor(epoch / (epochs / (drops + 1))), drops))

    return ratio


def piecewise_constant(boundaries: int, **pieces: float) -> Ratio:
    ends: list[Fraction] = []
    for i in range(1, boundaries + 1):
        before = ends[-1] if ends else Fraction(0)
        ends.append(before + decimal(pieces[f"break_{i}"]) * (1 - before))

    def ratio(step: int, total: int, per_epoch: int) -> float:
        passed = sum(step > end * total for end in ends)
        return math.prod(pieces[f"ratio_{i + 1}"] for i in range(passed))

    return ratio


def stairs_taken(step: int, total: int, stairs: int) -> float:
    """x = s/T, or in stairs; growing past 1 after the end."""
    return step / total if stairs == 0 else step * stairs // total / stairs


def exponential(final_ratio: float, stairs: int) -> Ratio:
    return lambda step, total, per_epoch: math.exp(math.log(final_ratio) * stairs_taken(step, total, stairs))


def natural_exponential(kappa: float, stairs: int) -> Ratio:
    return lambda step, total, per_epoch: math.exp(-kappa * stairs_taken(step, total, stairs))


def time_decay(final_ratio: float) -> Ratio:
    return lambda step, total, per_epoch: total / (total + (1 / final_ratio - 1) * step)


def inverse_time(kappa: float, stairs: int) -> Ratio:
    return lambda step, total, per_epoch: 1 / (1 + kappa * stairs_taken(step, total, stairs))


def inverse_time_power(kappa: float, power: float) -> Ratio:
    return lambda step, total, per_epoch: math.exp(-power * math.log1p(kappa * step / total))


def inverse_sqrt(tau: float) -> Ratio:
    return lambda step, total, per_epoch: 1 / math.sqrt(1 + step / (tau * total))


def polynomial(power: float, alpha: float, cycles: int) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        # A cycle's curve spans all that came before it, too: after m of them it reaches zero at m T / cycles.
        m = 1 if cycles == 1 else max(1, math.ceil(Fraction(step * cycles, total)))
        left = max(1 - Fraction(step * cycles, total * m), Fraction(0))
        return float(alpha + (1 - alpha) * float(left) ** power)

    return ratio


def linear(alpha: float) -> Ratio:
    return lambda step, total, per_epoch: 1 - (1 - alpha) * progress(step, total)


# --- waves


def cosine(alpha: float, power: float) -> Ratio:
    return lambda step, total, per_epoch: float(alpha + (1 - alpha) * half_wave(progress(step, total)) ** power)


def cycle_starts(cycles: int, t_mul: Fraction) -> list[Fraction]:
    """Where each cycle starts and the last one ends, as fractions of the training: exact."""
    lengths = [t_mul**cycle for cycle in range(cycles)]
    return [sum(lengths[:cycle], Fraction(0)) / sum(lengths) for cycle in range(cycles + 1)]


def cosine_restarts(cycles: int, t_mul: float, m_mul: float, alpha: float) -> Ratio:
    bounds = cycle_starts(cycles, decimal(t_mul))

    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = Fraction(step, total)
        while bounds[-1] <= u:  # past the end it goes on with further cycles
            bounds.append(bounds[-1] + (bounds[-1] - bounds[-2]) * decimal(t_mul))
        cycle = bisect(bounds, u) - 1
        v = (u - bounds[cycle]) / (bounds[cycle + 1] - bounds[cycle])
        return float(alpha + (1 - alpha) * m_mul**cycle * half_wave(float(v)))

    return ratio


def linear_cosine(periods: float, alpha: float, beta: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = progress(step, total)
        return (alpha + 1 - u) * math.cos(math.pi * periods * u) ** 2 + beta

    return ratio


def noiseless_linear_cosine(
    periods: float, alpha: float, beta: float, initial_variance: float, variance_decay: float
) -> Ratio:
    assert initial_variance == 0, "the noise is tested on its own"
    return linear_cosine(periods, alpha, beta)


# --- cycles


def one_cycle(pct_start: float, div: float, final_div: float, anneal: str) -> Ratio:
    def between(start: float, end: float, v: float) -> float:
        weight = v if anneal == "linear" else 1 - half_wave(v)
        return start + (end - start) * weight

    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = progress(step, total)
        if u < pct_start:
            return between(1 / div, 1.0, u / pct_start)
        return between(1.0, 1 / final_div, (u - pct_start) / (1 - pct_start))

    return ratio


def cyclical(cycles: int, span: float, mode: str, final_ratio: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = min(Fraction(step, total), Fraction(1))
        cycle = math.floor(cycles * u)
        v = float(cycles * u - cycle)
        triangle = 2 * min(v, 1 - v)
        height = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": final_ratio ** float(u)}[mode]
        return float(1 / span + (1 - 1 / span) * triangle * height)

    return ratio


# --- holds and other shapes


def wsd(cooldown: float, shape: str, alpha: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        held = 1 - decimal(cooldown)
        v = float(max((min(Fraction(step, total), Fraction(1)) - held) / (1 - held), Fraction(0)))
        fall = {"linear": 1 - v, "1-sqrt": 1 - math.sqrt(v), "cosine": half_wave(v)}[shape]
        return alpha + (1 - alpha) * fall

    return ratio


def hold_then_decay(hold: float, shape: str, alpha: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = progress(step, total)
        if u < hold:
            return 1.0
        v = (u - hold) / (1 - hold)
        cosine = alpha + (1 - alpha) * half_wave(v)
        return float({"exponential": alpha**v, "linear": 1 - (1 - alpha) * v, "cosine": cosine}[shape])

    return ratio


def rex(beta: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        left = max(total - step, 0) / total
        return left / (beta + (1 - beta) * left)

    return ratio


def k_decay(k: float, shape: str, power: float, alpha: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        bent = progress(step, total) ** k
        fall = half_wave(bent) if shape == "cosine" else (1 - bent) ** power
        return float(alpha + (1 - alpha) * fall)

    return ratio


def tanh(lower: float, upper: float) -> Ratio:
    # (1 - tanh z)/2 is the logistic function of -2z.
    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = progress(step, total)
        return 1 / (1 + math.exp(2 * (lower * (1 - u) + upper * u)))

    return ratio


def spline(x0: float, gap_1: float, gap_2: float, y1: float, drop: float) -> Ratio:
    x1 = x0 + gap_1 * (1 - x0)
    x2 = x1 + gap_2 * (1 - x1)
    curve = monotone_cubic([x0, x1, x2, 1.0], [1.0, y1, y1 * drop, 0.0])
    return lambda step, total, per_epoch: curve(max(progress(step, total), x0))


# --- what users write themselves

DROPS = "lr0 * g ** (epoch // k)"
COMPOUNDS = "lr * 0.9"
PIECES = "lr0 * max(0.25, 1 - step / steps) if epoch < epochs - 1 else lr0 / 8"


def drops(g: float, k: float) -> Ratio:
    return lambda step, total, per_epoch: float(g ** (step // per_epoch // k))


def compounds() -> Ratio:
    # Each value builds on the one before, so that it falls in epoch 0 already.
    return lambda step, total, per_epoch: float(0.9 ** (step // per_epoch + 1))


def pieces() -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        before_the_last = step // per_epoch + 1 < Fraction(total, per_epoch)
        return max(0.25, 1 - step / total) if before_the_last else 1 / 8

    return ratio


WRITTEN: dict[str, Callable[..., Ratio]] = {
    DROPS: drops,
    COMPOUNDS: compounds,
    PIECES: pieces,
    "lr0 * 0.1 ** (epoch // 30)": lambda: drops(0.1, 30),  # the default
}


def expression(expr: str, **own: float) -> Ratio:
    return WRITTEN[expr](**own)


def custom(function: str, hold: float = 10, decay: float = 0.1) -> Ratio:
    """The example of Keras' LearningRateScheduler: hold for some epochs, then lr * exp(-decay) in each."""
    assert function == "keras-example"
    return lambda step, total, per_epoch: math.exp(-decay * max(step // per_epoch - hold + 1, 0))


# --- the table


CASES: dict[str, Case] = {
    "constant": Case(constant, lambda: 1.0, {}),
    "step": Case(
        step_decay,
        lambda factor, drops, every: math.nan,  # an epoch may be broken there
        {"factor": st.floats(0.05, 0.95), "drops": st.integers(1, 40), "every": st.sampled_from([0, 0, 1, 2, 3, 7])},
        ({"factor": 0.5, "drops": 2}, {"factor": 0.5, "every": 1}),
    ),
    "piecewise_constant": Case(
        piecewise_constant,
        lambda boundaries, **pieces: math.prod(pieces[f"ratio_{i}"] for i in range(1, boundaries + 1)),
        {
            "boundaries": st.integers(1, 4),
            **{f"break_{i}": tidy(0.001, 0.999) for i in range(1, 5)},
            **{f"ratio_{i}": st.floats(0.01, 1) for i in range(1, 5)},
        },
        ({"boundaries": 2, "break_1": 0.25, "ratio_1": 0.5, "break_2": 0.5, "ratio_2": 0.2},),
    ),
    "time_decay": Case(
        time_decay,
        lambda final_ratio: final_ratio,
        {"final_ratio": over_decades(1e-9, 1)},
        ({"final_ratio": 0.05},),
        past_the_end="falls",
    ),
    "exponential": Case(
        exponential,
        lambda final_ratio, stairs: final_ratio,
        {"final_ratio": over_decades(1e-9, 1), "stairs": STAIRS},
        ({"final_ratio": 0.01}, {"final_ratio": 0.01, "stairs": 3}),
        past_the_end="falls",
    ),
    "natural_exponential": Case(
        natural_exponential,
        lambda kappa, stairs: math.exp(-kappa),
        {"kappa": over_decades(1e-3, 100), "stairs": STAIRS},
        ({"kappa": 3.0}, {"kappa": 3.0, "stairs": 4}),
        past_the_end="falls",
    ),
    "inverse_time": Case(
        inverse_time,
        lambda kappa, stairs: 1 / (1 + kappa),
        {"kappa": over_decades(1e-3, 1e6), "stairs": STAIRS},
        ({"kappa": 10.0}, {"kappa": 10.0, "stairs": 5}),
        past_the_end="falls",
    ),
    "inverse_time_power": Case(
        inverse_time_power,
        lambda kappa, power: float((1 + kappa) ** -power),
        {"kappa": over_decades(1e-3, 1e6), "power": over_decades(0.01, 10)},
        ({"kappa": 30.0, "power": 0.75},),
        past_the_end="falls",
    ),
    "inverse_sqrt": Case(
        inverse_sqrt,
        lambda tau: math.sqrt(tau / (tau + 1)),
        {"tau": over_decades(1e-6, 100)},
        ({"tau": 0.05},),
        past_the_end="falls",
    ),
    "polynomial": Case(
        polynomial,
        lambda power, alpha, cycles: alpha,
        {"power": over_decades(0.1, 50), "alpha": ALPHA, "cycles": st.one_of(st.just(1), st.integers(1, 100))},
        ({"power": 3.0, "alpha": 0.1}, {"power": 2.0, "cycles": 2}),
    ),
    "linear": Case(linear, lambda alpha: alpha, {"alpha": ALPHA}, ({"alpha": 0.0}, {"alpha": 0.01})),
    "cosine": Case(
        cosine,
        lambda alpha, power: alpha,
        {"alpha": ALPHA, "power": over_decades(0.1, 100)},
        ({"alpha": 0.0}, {"alpha": 0.001, "power": 2.0}),
    ),
    "cosine_restarts": Case(
        cosine_restarts,
        lambda cycles, t_mul, m_mul, alpha: alpha + (1 - alpha) * m_mul**cycles,
        {
            "cycles": st.integers(1, 12),
            "t_mul": st.sampled_from([1.0, 1.3, 1.5, 2.0, 2.4, 3.0, 10.0]),
            "m_mul": st.floats(0.1, 1),
            "alpha": ALPHA,
        },
        ({"cycles": 3, "t_mul": 2.0, "m_mul": 0.5, "alpha": 0.1},),
        past_the_end="neither",
    ),
    "linear_cosine": Case(
        linear_cosine,
        lambda periods, alpha, beta: alpha * math.cos(math.pi * periods) ** 2 + beta,
        {"periods": st.one_of(st.sampled_from([0.5, 1.5, 2.5]), st.floats(0.01, 10)), "alpha": ALPHA, "beta": ALPHA},
        ({"periods": 2.5, "alpha": 0.1, "beta": 0.01},),
        first=lambda periods, alpha, beta: 1 + alpha + beta,
        highest=lambda periods, alpha, beta: 1 + alpha + beta,
    ),
    "noisy_linear_cosine": Case(
        noiseless_linear_cosine,
        lambda periods, alpha, beta, **noise: alpha * math.cos(math.pi * periods) ** 2 + beta,
        {
            "periods": st.one_of(st.sampled_from([0.5, 1.5, 2.5]), st.floats(0.01, 10)),
            "alpha": ALPHA,
            "beta": ALPHA,
            "initial_variance": st.just(0.0),
            "variance_decay": st.floats(0, 10),
        },
        ({"periods": 1.5, "beta": 0.01, "initial_variance": 0.0},),
        first=lambda periods, alpha, beta, **noise: 1 + alpha + beta,
        highest=lambda **_: math.inf,
    ),
    "one_cycle": Case(
        one_cycle,
        lambda pct_start, div, final_div, anneal: 1 / final_div,
        {
            "pct_start": tidy(0.001, 0.999),
            "div": over_decades(1, 1e4),
            "final_div": over_decades(1, 1e8),
            "anneal": st.sampled_from(["cosine", "linear"]),
        },
        ({"pct_start": 0.25, "div": 10.0, "final_div": 100.0}, {"anneal": "linear", "final_div": 100.0}),
        first=lambda pct_start, div, final_div, anneal: 1 / div,
    ),
    "cyclical": Case(
        cyclical,
        lambda cycles, span, mode, final_ratio: 1 / span,
        {
            "cycles": st.one_of(st.integers(1, 12), st.integers(1, 1000)),
            "span": over_decades(1.001, 1e4),
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "final_ratio": over_decades(1e-6, 1),
        },
        tuple({"cycles": 3, "span": 5.0, "mode": mode} for mode in ("triangular", "triangular2", "exp_range")),
        first=lambda cycles, span, mode, final_ratio: 1 / span,
    ),
    "wsd": Case(
        wsd,
        lambda cooldown, shape, alpha: alpha,
        {"cooldown": tidy(0.001, 1), "shape": st.sampled_from(["linear", "1-sqrt", "cosine"]), "alpha": ALPHA},
        tuple({"cooldown": 0.4, "shape": shape, "alpha": 0.01} for shape in ("linear", "1-sqrt", "cosine")),
    ),
    "hold_then_decay": Case(
        hold_then_decay,
        lambda hold, shape, alpha: alpha,
        {
            "hold": tidy(0, 0.99),
            "shape": st.sampled_from(["exponential", "linear", "cosine"]),
            "alpha": over_decades(1e-9, 1),
        },
        tuple({"hold": 0.3, "shape": shape, "alpha": 0.02} for shape in ("exponential", "linear", "cosine")),
    ),
    "rex": Case(rex, lambda beta: 0.0, {"beta": over_decades(1e-3, 100)}, ({"beta": 0.5}, {"beta": 2.0})),
    "k_decay": Case(
        k_decay,
        lambda k, shape, power, alpha: alpha,
        {
            "k": over_decades(0.01, 100),
            "shape": st.sampled_from(["cosine", "polynomial"]),
            "power": over_decades(0.1, 100),
            "alpha": ALPHA,
        },
        ({"k": 1.5, "alpha": 0.01}, {"k": 2.0, "shape": "polynomial", "power": 1.5}),
    ),
    "tanh": Case(
        tanh,
        lambda lower, upper: (1 - math.tanh(upper)) / 2,
        {"lower": st.floats(-20, 0), "upper": st.floats(0, 20)},
        ({"lower": -4.0, "upper": 2.0},),
        first=lambda lower, upper: (1 - math.tanh(lower)) / 2,
    ),
    "spline": Case(
        spline,
        lambda x0, gap_1, gap_2, y1, drop: 0.0,
        {
            "x0": tidy(0, 0.99),
            "gap_1": tidy(0.01, 0.99),
            "gap_2": tidy(0.01, 0.99),
            "y1": st.floats(0, 1),
            "drop": st.floats(0, 1),
        },
        ({"x0": 0.1, "gap_1": 0.3, "gap_2": 0.6, "y1": 0.7, "drop": 0.4},),
    ),
    "expression": Case(
        expression,
        lambda expr, **own: math.nan,  # whatever the formula says
        {"expr": st.just(DROPS), "g": st.floats(0.05, 1), "k": st.integers(1, 9)},
        ({"expr": DROPS, "g": 0.5, "k": 1}, {"expr": COMPOUNDS}, {"expr": PIECES}),
        past_the_end="neither",
    ),
    "custom": Case(
        custom,
        lambda function, **own: math.nan,
        {"function": st.just("keras-example"), "hold": st.integers(1, 9), "decay": st.floats(0, 1)},
        ({"hold": 1, "decay": 0.5},),
        past_the_end="neither",
    ),
}
