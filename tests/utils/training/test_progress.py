"""Which epoch counts as the best, and when is a training evaluated and stopped?"""

from import_param import Training
from utils.training.progress import Progress


def test_the_best_epoch_is_the_first_with_the_highest_map() -> None:
    progress = Progress()
    judged = [progress.judge(value, shrinking=False) for value in (0.0, 0.2, 0.2, 0.1, 0.3)]
    assert judged == [True, True, False, False, True]
    assert (progress.best, progress.stale) == (0.3, 0)


def test_while_a_penalty_shrinks_the_network_the_last_epoch_is_the_best() -> None:
    progress = Progress()
    assert all(progress.judge(value, shrinking=True) for value in (0.3, 0.2, 0.1))
    assert (progress.best, progress.stale) == (0.1, 0)


def test_after_a_cut_the_next_epoch_is_the_best() -> None:
    progress = Progress()
    progress.judge(0.9, shrinking=True)
    progress.forget_best()
    assert progress.judge(0.0, shrinking=False)
    assert not progress.judge(0.0, shrinking=False) and progress.stale == 1


def test_evaluations_are_due_at_their_interval_and_at_the_end() -> None:
    settings = Training(epochs=7, eval_every=3)
    due = [epoch for epoch in range(1, 8) if Progress(epoch).evaluation_due(settings)]
    assert due == [3, 6, 7]


def test_patience_ends_after_as_many_stale_evaluations_and_0_never_does() -> None:
    assert [Progress(stale=n).out_of_patience(Training(patience=2)) for n in (0, 1, 2, 3)] == [
        False,
        False,
        True,
        True,
    ]
    assert not Progress(stale=99).out_of_patience(Training(patience=0))
