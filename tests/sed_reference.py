"""Scores of ``sed_eval`` and ``sed_scores_eval``, computed by a Python that has them: JSON in, JSON out.

They need a compiler and other versions of packages than fsat, so they are installed beside it (``.ci/run``), and
`reference_scores` calls this file with the interpreter that the environment variable SED_PYTHON names.
"""

import json
import math
import os
import subprocess
import sys

VARIABLE = "SED_PYTHON"


def reference_scores(recordings, labels, resolution=1.0, collar=0.2, share=0.5, labels_of_curves=()):
    """Return the scores of recordings, each with seconds, annotated, detected, and for curves edges and scores."""
    from servers import needs

    python = os.environ.get(VARIABLE, "")
    packages = 'install "sed_eval>=0.2.1" "sed_scores_eval>=0.0.4" in a virtual environment of their own'
    needs(python, "sed_eval", f"{packages}, and set {VARIABLE} to its python")
    request = {"recordings": recordings, "labels": labels, "resolution": resolution, "collar": collar, "share": share,
               "labels_of_curves": list(labels_of_curves)}  # fmt: skip
    done = subprocess.run([python, __file__], input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def _answer(request):
    import sed_eval

    labels = request["labels"]
    segments = sed_eval.sound_event.SegmentBasedMetrics(labels, time_resolution=request["resolution"])
    events = sed_eval.sound_event.EventBasedMetrics(
        labels, t_collar=request["collar"], percentage_of_length=request["share"]
    )
    for number, recording in enumerate(request["recordings"]):
        annotated, detected = (
            [
                {"event_onset": start, "event_offset": end, "event_label": label, "file": f"{number}.wav"}
                for start, end, label in recording[name]
            ]
            for name in ("annotated", "detected")
        )
        segments.evaluate(annotated, detected, evaluated_length_seconds=recording["seconds"])
        events.evaluate(annotated, detected)
    answer = {"segments": _metrics(segments), "events": _metrics(events)}
    if request["labels_of_curves"]:
        answer["curves"] = _curves(request)
    return answer


def _metrics(metrics):
    def flat(result):
        return {**result["f_measure"], "error_rate": result["error_rate"]["error_rate"]}

    overall, macro = metrics.results_overall_metrics(), metrics.results_class_wise_average_metrics()
    classes = {label: flat(result) for label, result in metrics.results_class_wise_metrics().items()}
    return {"overall": flat(overall), "macro": flat(macro), "classes": classes}


def _curves(request):
    import numpy as np
    from sed_scores_eval import segment_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    used, labels = request["labels_of_curves"], request["labels"]
    scores, truth, seconds = {}, {}, {}
    for number, recording in enumerate(request["recordings"]):
        rows = np.nan_to_num(np.array(recording["scores"], float))[:, [labels.index(label) for label in used]]
        scores[str(number)] = create_score_dataframe(rows, np.array(recording["edges"]), used)
        truth[str(number)] = [event for label in used for event in _joined(recording["annotated"], label)]
        seconds[str(number)] = recording["seconds"]
    arguments = scores, truth, seconds
    precisions, _ = segment_based.average_precision(*arguments, segment_length=request["resolution"])
    f1, precision, recall, thresholds, _ = segment_based.best_fscore(*arguments, segment_length=request["resolution"])
    return {
        label: {"average_precision": precisions[label], "f1": f1[label], "precision": precision[label],
                "recall": recall[label], "threshold": thresholds[label]}
        for label in used
    }  # fmt: skip


def _joined(events, label):
    """Return the events of a class, with those that overlap as one: sed_scores_eval takes no others."""
    joined = []
    for start, end, _ in sorted(event for event in events if event[2] == label):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [(start, end, label) for start, end in joined]


def _plain(value):
    """Return values that JSON can write: NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return None if math.isnan(value) else float(value)


if __name__ == "__main__":
    print(json.dumps(_plain(_answer(json.load(sys.stdin)))))
