"""Train a network on your photos; without flags, a small one on a demo set.

    python train.py --data my_photos --cfg config/yolov3-tiny.cfg --img_size 320 --name first
    python train.py --data my_photos --cfg config/yolov3-spp.cfg --pretrained --weights spp.weights
    python train.py --resume weights/first/last.pt

weights/<name> takes the checkpoints best.pt and last.pt and the Darknet pair best.cfg with
best.weights, runs/<name> the settings, figures, curves and pictures.
"""

from __future__ import annotations

import sys

from import_param import TrainSettings
from utils import errors
from utils.console.progress import say
from utils.processes import distributed
from utils.settings.loader import given, load

FIRST_FLAGS = (  # of --help; --help_all has the others
    *("data", "cfg", "img_size", "pretrained", "weights", "epochs"),
    *("batch_size", "name", "resume", "is_pruned", "pruned_id", "teacher"),
)


def main(argv: list[str] | None = None) -> None:
    """Train as the flags say; `runs/<name>` and `weights/<name>` take what the run leaves."""
    settings = load(TrainSettings, argv, about=__doc__, first=FIRST_FLAGS)

    # Only now, so that --help and a mistyped flag need not wait for torch.
    import torch

    from pruning.iterative.while_training import pruning_while_training
    from utils.console.next_steps import after_training
    from utils.data.splits import open_splits
    from utils.devices import choose_algorithms, choose_device, join
    from utils.evaluation.metrics import format_metrics
    from utils.training import report
    from utils.training.batch_size import with_batch_size, within_memory
    from utils.training.batches import TrainingBatches, ValidationBatches, photo_views
    from utils.training.build import build_network, describe, load_teacher, read_netdef
    from utils.training.epoch_lines import EpochLines
    from utils.training.loop import TrainerFactory, train_one_epoch
    from utils.training.precision import training_dtype, type_name
    from utils.training.resume import RunRecord, begin, history_of, restore_, save, stoppable
    from utils.training.runs import open_run

    join(settings.model.device)
    settings, checkpoint = distributed.from_main(lambda: begin(settings, given(argv)))
    device = choose_device(settings.model.device)
    choose_algorithms(settings.training.deterministic)
    report.check_monitor(settings.monitoring)
    torch.manual_seed(settings.training.seed)

    known = {checkpoint.path: checkpoint.names} if checkpoint else {}
    netdef = distributed.from_main(lambda: read_netdef(settings, checkpoint))
    views = photo_views(settings.augmentation, netdef)
    training_photos, validation_photos = open_splits(settings.data, known, views)
    names = training_photos.names
    model = distributed.from_main(
        lambda: build_network(settings, netdef, training_photos, checkpoint)
    )
    settings = with_batch_size(settings, device, model.netdef, len(training_photos))
    teacher = distributed.from_main(lambda: load_teacher(settings, model.netdef, names))
    if teacher:
        teacher.to(device)
    pruning = pruning_while_training(settings, model, checkpoint)
    training = TrainingBatches(settings, training_photos, model.netdef)
    validation = ValidationBatches(settings, validation_photos, model.netdef)

    with open_run(settings, checkpoint) as run, stoppable(run, settings):
        computing = f"on {device} in {type_name(training_dtype(settings.training, device))}"
        say(f"{run.name}: {describe(model)}, {computing}; see {run.folder}, {run.weights}")
        make_trainer = TrainerFactory(settings, training.optimizer_steps, run.folder, teacher)
        trainer = pruning.start(model.to(device), make_trainer)
        record = RunRecord.of(run, settings, training, validation, checkpoint)
        progress = restore_(trainer, checkpoint, record)

        distributed.on_main(lambda: report.write_overview(training, validation, run.folder))
        history = history_of(checkpoint)
        if progress.finished(settings.training):
            say(f"{run.name}: nothing is left to train after epoch {progress.epoch}")
        lines = EpochLines(settings)
        page = report.open_page(run, settings, training, validation)
        with page, report.open_monitor(run, settings, progress, history) as monitor:
            while not progress.finished(settings.training):
                epoch = progress.epoch
                # Dropout, as without a resume.
                torch.manual_seed(distributed.own_seed(settings.training.seed + epoch))
                title = f"epoch {epoch + 1}/{settings.training.epochs}"
                with within_memory(settings, device):
                    means = train_one_epoch(trainer, training.epoch(epoch), len(training), title)
                progress.epoch = epoch + 1

                previous = trainer
                trainer, scales = pruning.after_epoch(previous, progress.epoch, make_trainer)
                is_cut = trainer is not previous
                del previous  # with its network, running mean and optimizer
                if is_cut:
                    progress.forget_best()  # earlier networks were larger: another race

                figures = report.training_figures(means) | scales
                better, metrics, detections = False, None, None
                if progress.evaluation_due(settings.training):
                    metrics, detections = validation.evaluate(trainer.averaged)
                    better = progress.judge(metrics.mean_ap, shrinking=trainer.penalty is not None)
                    figures |= report.validation_figures(metrics, names)
                monitor.add(progress.epoch, figures)
                save(record, trainer, progress, pruning.state(), monitor.history, better)
                say(lines.of(progress, figures, better))
                if metrics and settings.monitoring.class_table:
                    say(format_metrics(metrics, names))
                monitor.show(figures)  # only now: what cannot be shown must not cost the epoch
                report.show_examples(monitor, progress.epoch, validation, detections)
                page.update(progress.epoch, metrics, detections)
                distributed.wait_for_main()
            if progress.out_of_patience(settings.training):
                say(f"stopped: no better mAP in {progress.stale} evaluations")
        distributed.go_on_alone()
        report.report_best(run, settings, validation, page)
        safe_percent = pruning.report(run, training, validation)
        page.write()
        photos = validation_photos.photos[0].path.parent
        after_training(settings, run.weights / "best.pt", photos, safe_percent)


if __name__ == "__main__":
    sys.exit(errors.run(main, together=True))
