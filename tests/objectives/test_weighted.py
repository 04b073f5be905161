"""A weighted KL and free bits: where they are the ELBO, what they differentiate, and schedules inside the program."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import VAE, objectives, priors
from tfvae.objectives import FreeBits, Weighted

X, _ = linear_gaussian.rows(10)


def fitted(objective, x=X, steps: int | None = None, epochs: int = 3, **how) -> tuple[VAE, dict[str, list[float]]]:
    vae = linear_gaussian.vae(objective=objective, wider=1.5, shift=0.4, seed=3)
    vae.compile(keras.optimizers.Adam(0.02), steps_per_execution=steps, jit_compile=how.pop("jit_compile", False))
    return vae, vae.fit(x, batch_size=4, epochs=epochs, verbose=0, **how).history


def assert_same_weights(one: VAE, other: VAE, rtol: float = 0.0, atol: float = 0.0) -> None:
    for found, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_a_weight_of_one_is_the_elbo_bit_for_bit():
    (one, history), (elbo, expected) = fitted(Weighted(1.0)), fitted(objectives.elbo)
    assert history == expected
    assert_same_weights(one, elbo)


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_the_loss_is_what_is_minimised_and_the_elbo_is_beside_it(beta):
    _, history = fitted(Weighted(beta))
    parts = np.array(history["log_likelihood"]), np.array(history["kl"])
    np.testing.assert_allclose(history["elbo"], parts[0] - parts[1], rtol=1e-5)
    np.testing.assert_allclose(history["loss"], beta * parts[1] - parts[0], rtol=1e-5)


def test_the_gradient_is_that_of_the_weighted_kl():
    """∇ of -E log p(x|z) + β KL is linear in β: that of β = 3 follows from those of 0 and 1."""
    found = {}
    for beta in (0.0, 1.0, 3.0):
        vae = linear_gaussian.vae(objective=Weighted(beta), wider=1.5, shift=0.4)
        with tf.GradientTape() as tape:
            rows = vae.loss_of_draw({"x": tf.constant(X)}, tf.ones([10]), tf.constant([1, 2]), True, None).rows
            loss = tf.reduce_mean(rows)
        found[beta] = np.concatenate([np.ravel(g) for g in tape.gradient(loss, vae.recognition_weights)])
    np.testing.assert_allclose(found[3.0], found[0.0] + 3 * (found[1.0] - found[0.0]), rtol=1e-4, atol=1e-5)
    assert np.abs(found[1.0] - found[0.0]).max() > 0.1


def warm_up(steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.PolynomialDecay(0.0, steps, 1.0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_schedule_moves_within_a_program_of_many_steps(jit_compile):
    """10 rows in batches of 4: three steps an epoch, nine in all, β = step / 8 at each."""
    runs = [fitted(Weighted(warm_up(8)), steps=steps, jit_compile=jit_compile) for steps in (1, 3)]
    np.testing.assert_allclose(runs[0][1]["loss"], runs[1][1]["loss"], rtol=1e-5)
    assert_same_weights(runs[0][0], runs[1][0], rtol=1e-4, atol=1e-6)
    other = fitted(Weighted(warm_up(1000)), steps=3)[0]
    assert np.abs(other.get_weights()[0] - runs[1][0].get_weights()[0]).max() > 1e-3


def test_the_value_at_each_step_is_the_schedule_s_own():
    """Where nothing is learned, the loss of step i is -E log p(x|z) + β(i) KL."""
    vae = linear_gaussian.vae(objective=Weighted(warm_up(8)), wider=1.5, seed=0)
    vae.compile(keras.optimizers.SGD(0.0), steps_per_execution=5, jit_compile=False)
    history = vae.fit(X, batch_size=10, epochs=11, steps_per_epoch=1, verbose=0).history
    betas = (np.array(history["loss"]) + history["log_likelihood"]) / history["kl"]
    np.testing.assert_allclose(betas, np.minimum(np.arange(11) / 8, 1.0), atol=1e-5)


@pytest.mark.parametrize("setting", [Weighted(warm_up(8)), FreeBits(warm_up(8))], ids=lambda s: type(s).__name__)
def test_a_saved_schedule_goes_on_where_it_stood(setting, tmp_path):
    vae, _ = fitted(setting, epochs=1)
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.objective.get_config() == setting.get_config()
    assert int(loaded.optimizer.iterations) == 3
    more = [model.fit(X, batch_size=4, epochs=2, verbose=0).history for model in (vae, loaded)]
    assert more[0] == more[1]
    assert_same_weights(loaded, vae)


# Free bits


def test_no_free_bits_are_the_elbo():
    (one, history), (elbo, expected) = fitted(FreeBits(0.0)), fitted(objectives.elbo)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    assert_same_weights(one, elbo, rtol=1e-4, atol=1e-6)


FLOOR = 0.5


def unequal() -> VAE:
    """The first unit says much, the second next to nothing: q(z₂|x) is close to p(z₂)."""
    vae = linear_gaussian.vae(objective=FreeBits(FLOOR), seed=0)
    kernel, bias = (weight.copy() for weight in vae.posterior.projection.get_weights())
    kernel[:, 1] = 0.0
    bias[1], bias[3] = 0.1, np.log(np.expm1(0.9))
    vae.posterior.projection.set_weights([kernel, bias])
    return vae


def kl_of_units(vae: VAE, x: np.ndarray) -> np.ndarray:
    q = vae.encode(x).distribution
    loc, scale = q.loc.numpy().astype(np.float64), q.scale.numpy().astype(np.float64)
    return 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)


def test_a_unit_below_the_floor_pays_the_floor_and_learns_nothing_of_its_kl():
    vae = unequal()
    kl = kl_of_units(vae, X).mean(axis=0)
    assert kl[0] > FLOOR > kl[1] and kl_of_units(vae, X)[:, 0].min() < FLOOR - 0.03  # of single rows, some are below
    with tf.GradientTape(persistent=True) as tape:
        terms = vae.terms(X, 2, tf.constant([1, 2]))
        estimate = objectives.FreeBits(FLOOR)(terms)
        paid = tf.reduce_mean(tf.reduce_mean(terms.log_likelihood, axis=0) - estimate.objective)
        whole = tf.reduce_mean(terms.kl)
    assert float(paid) == pytest.approx(kl[0] + FLOOR, rel=1e-5)
    np.testing.assert_allclose(estimate.bound, objectives.elbo(terms).bound)
    bias = vae.posterior.projection.bias
    of_paid, of_kl = (tape.gradient(value, bias).numpy() for value in (paid, whole))
    np.testing.assert_allclose(of_paid[[0, 2]], of_kl[[0, 2]], rtol=1e-5, atol=1e-7)
    assert of_paid[[1, 3]].tolist() == [0.0, 0.0] and np.abs(of_kl[[1, 3]]).min() > 0.01


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_that_fill_the_last_batch_never_count(streamed):
    """In a batch of 7 the last of 10 rows are 3: the mean KL is theirs alone, though others fill the batch."""
    x = X.copy()
    x[:7] *= 30.0  # whose KL is another, if they were counted
    x[7] += 3.0  # of the last three, the one that fills most places
    vae = unequal()
    vae.compile(keras.optimizers.SGD(0.0), steps_per_execution=3, jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(x).batch(7) if streamed else x
    size = {} if streamed else {"batch_size": 7}
    history = vae.fit(data, epochs=1, shuffle=False, verbose=0, **size).history
    paid = [np.maximum(FLOOR, kl_of_units(vae, x[i : i + 7]).mean(axis=0)).sum() for i in (0, 7)]
    expected = np.average(paid, weights=[7, 3])
    assert history["loss"][0] + history["log_likelihood"][0] == pytest.approx(expected, rel=1e-5)


def test_sample_weights_weigh_the_mean_kl():
    vae = unequal()
    weights = np.random.default_rng(0).uniform(0, 3, 10).astype(np.float32)
    terms = vae.terms(X, 1, tf.constant([1, 2]), weights=tf.constant(weights))
    paid = terms.log_likelihood[0] - objectives.FreeBits(0.01)(terms).objective
    mean = np.average(kl_of_units(vae, X), axis=0, weights=weights)
    np.testing.assert_allclose(paid, np.full(10, np.maximum(0.01, mean).sum()), rtol=1e-5)


@pytest.mark.parametrize(("make", "name"), [(Weighted, "beta"), (FreeBits, "nats")])
def test_a_negative_setting_is_refused(make, name):
    for value in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} is {value}, expected 0 or more"):
            make(value)


def test_a_capacity_is_held_by_the_mean_of_the_rows_that_count():
    """10 rows in batches of 4: the last has two, and what fills it does not count."""
    vae = linear_gaussian.vae(wider=1.5, shift=0.4)
    terms = vae.terms(X[:6], 2, tf.constant([1, 2]), weights=tf.constant([1.0, 1, 1, 1, 0, 0]))
    kl = terms.kl.numpy().astype(np.float64)[:4].mean()
    found = objectives.Capacity(kl + 2.0, gamma=3.0)(terms)
    np.testing.assert_allclose(found.objective, terms.log_likelihood.numpy().mean(axis=0) - 6.0, rtol=1e-5)
    np.testing.assert_allclose(found.bound, objectives.elbo(terms).bound)


def test_the_papers_capacity_grows_to_25_nats_in_100000_steps():
    capacity = objectives.Capacity().capacity
    assert [float(capacity(tf.constant(step))) for step in (0, 50_000, 100_000, 200_000)] == [0.0, 12.5, 25.0, 25.0]


@pytest.mark.parametrize("each_row", [False, True])
@pytest.mark.parametrize("group_size", [1, 2])
def test_floors_are_of_groups_of_units_in_the_mean_or_in_each_row(group_size, each_row):
    vae = linear_gaussian.vae(wider=1.5, shift=0.4)
    terms = vae.terms(X, 2, tf.constant([1, 2]), weights=tf.ones([10]))
    kl = terms.kl_by_unit().numpy().astype(np.float64).reshape(10, -1, group_size).sum(axis=-1)
    floor = float(np.median(kl))
    paid = np.maximum(floor, kl if each_row else kl.mean(axis=0)).sum(axis=-1)
    found = FreeBits(floor, group_size, each_row)(terms).objective
    np.testing.assert_allclose(found, terms.log_likelihood.numpy().mean(axis=0) - paid, rtol=1e-5, atol=1e-5)


def test_units_that_are_tied_have_one_floor_and_it_is_asked_for():
    terms = linear_gaussian.vae(prior=priors.Mixture(2, num_components=3)).terms(X, 4, tf.constant([1, 2]))
    with pytest.raises(ValueError, match=r"ties them together, and their KL is one number: give group_size=2"):
        FreeBits(0.1)(terms)
    kl = terms.kl.numpy()
    paid = terms.log_likelihood.numpy().mean(axis=0) - FreeBits(9.0, 2, each_row=True)(terms).objective.numpy()
    np.testing.assert_allclose(paid, np.maximum(kl, 9.0), rtol=1e-5)


def test_groups_must_divide_the_units():
    with pytest.raises(ValueError, match="2 units of z cannot be divided into groups of 3"):
        FreeBits(0.1, 3)(linear_gaussian.vae().terms(X, 1, tf.constant([1, 2])))
