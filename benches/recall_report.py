"""What benches/recall.py saw, in words, as a table and as a picture."""

import collections
import json
import sys

import numpy as np

import kinds
from kinds import COSINE, HAMMING, IP, L1, L2, L2_ROOT

DEFAULT_TARGET = 0.95
FILTERS = ("random", "near", "far", "outer")
#: The share of cells that may be below their target, where the reply says so.
SAID_MAX = 0.01
LOWEST = 40
#: Metrics that are of one picture: their order is the same, or their data differ.
GROUPS = {L2: "Euclidean", L2_ROOT: "Euclidean", IP: "inner product", COSINE: "cosine", L1: "Manhattan, Hamming",
          HAMMING: "Manhattan, Hamming"}


def is_below(cell):
    return cell["recall"] < cell["target"]


def is_lost(cell):
    return is_below(cell) and max(cell.get("hnswlib", 0), cell.get("faiss", 0)) >= cell["target"]


def count(cells):
    below = [cell for cell in cells if is_below(cell)]
    return {
        "cells": len(cells), "below": len(below),
        "said": sum(cell["said"] for cell in below), "silent": sum(not cell["said"] for cell in below),
        # Replies that expect nothing, as where it was never measured, do not say that it is missed.
        "silent_without_claim": sum(not cell["said"] and not cell.get("expected") for cell in below),
        "silent_beyond_chance": sum(not cell["said"] and cell["recall"] + 2 * cell["error"] < cell["target"]
                                    for cell in below),
        "lost": sum(map(is_lost, below)),
        "said_without_need": sum(cell["said"] for cell in cells) - sum(cell["said"] for cell in below),
    }


def place_of(cell):
    among = "" if cell["filter"] == "none" else f", {cell['filter']} {cell['share']:.0%}"
    return f"{cell['query']}{among}, k {cell['k']}"


def summary_lines(report):
    for target in report["targets"]:
        one = count([cell for cell in report["cells"] if cell["target"] == target])
        yield (f"target {target}: {one['cells']} cells, {one['below']} below it: {one['said']} said, {one['silent']} "
               f"silent ({one['silent_beyond_chance']} by more than chance, {one['silent_without_claim']} where the "
               f"reply claims nothing), {one['lost']} where hnswlib or faiss reaches it; {one['said_without_need']} said "
               "without need")
    for note in report["notes"]:
        yield note


def is_met(report):
    for target in report["targets"]:
        one = count([cell for cell in report["cells"] if cell["target"] == target])
        if one["silent"] or one["lost"] or one["said"] > SAID_MAX * one["cells"]:
            return False
    return True


def of(cell):
    """The line of the table that a cell belongs to."""
    return cell["data"], cell["metric"], cell["index"], cell["target"]


def grouped(report):
    groups = collections.defaultdict(list)
    for cell in report["cells"]:
        groups[of(cell)].append(cell)
    return groups


def table(report, picture):
    """Markdown: each kind of data with each metric and index on a line."""
    yield "# What searches find\n"
    yield (f"Made by `{report['command']}` ({report['versions']['voisin']}; hnswlib {report['versions']['hnswlib']}, "
           f"faiss {report['versions']['faiss-cpu']}; {report['rows']:,} rows of each kind, seed {report['seed']}). "
           "The figures are recalls: the mean of the cell with the lowest mean, which cell that is, and the "
           "lowest of a single query of any cell. hnswlib and faiss: their lowest cell, of those without a filter "
           "(M 16, ef 100); lists: faiss's own inverted lists, one of them looked into."
           f"{' Before: the lowest cell of an earlier run.' if 'before' in report else ''}\n")
    for line in summary_lines(report):
        yield f"- {line}"
    if "before" in report:
        here = {of(cell) for cell in report["cells"]}
        shared = [cell for cell in report["before"]["cells"] if of(cell) in here]
        known = {"targets": report["targets"], "notes": [], "cells": shared}
        yield from (f"- before, of the lines that were measured then: {line}" for line in summary_lines(known))
    yield f"\n![The lowest recall of each kind of data and query]({picture})"
    for target in report["targets"]:
        yield f"\n## Target {target}{', which is the default' if target == DEFAULT_TARGET else ''}\n"
        yield ("| data | metric | index | cells | before | lowest | where | worst query | below, said | below, silent | "
               "hnswlib | faiss | lists | lost |")
        yield "|---|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|"
        earlier = grouped(report["before"]) if "before" in report else {}
        for (data, metric, index, aimed), cells in grouped(report).items():
            if aimed != target:
                continue
            lowest, one = min(cells, key=lambda cell: cell["recall"]), count(cells)
            plain = [cell for cell in cells if cell["filter"] == "none"]
            peers = [f"{min(found):.3f}" if (found := [cell[peer] for cell in plain if peer in cell]) else ""
                     for peer in ("hnswlib", "faiss", "faiss_lists")]
            before = [cell["recall"] for cell in earlier.get((data, metric, index, target), [])]
            yield (f"| {data} | {metric} | {index} | {one['cells']} | {f'{min(before):.3f}' if before else ''} | "
                   f"{lowest['recall']:.3f} | {place_of(lowest)} | "
                   f"{min(cell['worst'] for cell in cells):.2f} | {one['said'] or ''} | {one['silent'] or ''} | "
                   f"{' | '.join(peers)} | {one['lost'] or ''} |")
    below = sorted(filter(is_below, report["cells"]), key=lambda cell: cell["recall"] - cell["target"])
    if below:
        yield f"\n## The lowest {min(LOWEST, len(below))} of {len(below)} cells below their target\n"
        yield "| data | metric | index | target | cell | recall | worst query | expected | hnswlib | faiss |"
        yield "|---|---|---|--:|---|--:|--:|--:|--:|--:|"
        for cell in below[:LOWEST]:
            more = [f"{cell[name]:.3f}" if name in cell else "" for name in ("expected", "hnswlib", "faiss")]
            yield (f"| {cell['data']} | {cell['metric']} | {cell['index']} | {cell['target']} | {place_of(cell)} | "
                   f"{cell['recall']:.3f} | {cell['worst']:.2f} | {' | '.join(more)} |")


def plot(report, path):
    """Kinds of data by metrics and queries: the lowest mean recall of plain graphs, and of the other indexes."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm, ListedColormap

    target = report["targets"][0]
    cells = [cell for cell in report["cells"] if cell["target"] == target]
    names = list(dict.fromkeys(cell["data"] for cell in cells))
    lowest, silent = {}, set()
    for cell in cells:
        column = cell["query"] if cell["filter"] == "none" else f"filter {cell['filter']}"
        group = GROUPS[cell["metric"]] if cell["index"] == "HNSW" else cell["index"]
        at = (cell["data"], group, column)
        lowest[at] = min(cell["recall"], lowest.get(at, 1.0))
        if is_below(cell) and not cell["said"]:
            silent.add(at)
    queries = [*kinds.QUERIES, *(f"filter {name}" for name in FILTERS)]
    others = dict.fromkeys(cell["index"] for cell in cells if cell["index"] != "HNSW")
    groups = [group for group in dict.fromkeys((*GROUPS.values(), *others)) if any(at[1] == group for at in lowest)]
    columns = []
    for group in groups:
        columns += [(group, query) for query in queries if any(at[1:] == (group, query) for at in lowest)]
    grid = np.full((len(names), len(columns)), np.nan)
    for row, name in enumerate(names):
        for place, (group, query) in enumerate(columns):
            grid[row, place] = lowest.get((name, group, query), np.nan)
    bounds = [0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0001]
    colours = ["#67001f", "#a50f15", "#d7301f", "#f16913", "#fdae6b", "#fee391", "#c7e9b4", "#7fcdbb", "#2c7fb8"]
    figure, area = plt.subplots(figsize=(max(7, 3 + 0.24 * len(columns)), max(4, 2.6 + 0.27 * len(names))))
    cmap = ListedColormap(colours)
    cmap.set_bad("#f2f2f2")
    image = area.imshow(np.ma.masked_invalid(grid), cmap=cmap, norm=BoundaryNorm(bounds, len(colours)), aspect="auto")
    for row, place in zip(*np.where(grid < target)):
        # Cut off: 0.9499 is no 95.
        number = str(int(grid[row, place] * 100))
        area.text(place, row, number if (names[row], *columns[place]) in silent else f"({number})", ha="center",
                  va="center", fontsize=6, color="white" if grid[row, place] < 0.7 else "black")
    area.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    area.set_xticks(range(len(columns)), [query for _, query in columns], rotation=90, fontsize=7)
    area.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    area.set_yticks(np.arange(len(names)) - 0.5, minor=True)
    area.grid(which="minor", color="white", linewidth=0.6)
    area.tick_params(which="minor", length=0)
    for group in groups:
        inside = [place for place, (of, _) in enumerate(columns) if of == group]
        area.text(np.mean(inside), -0.8, group if group in others else f"HNSW, {group}", ha="center", va="bottom",
                  fontsize=8, rotation=0 if len(inside) > 3 else 90)
        if inside[0]:
            area.axvline(inside[0] - 0.5, color="black", linewidth=1.2)
    bar = figure.colorbar(image, ax=area, ticks=bounds, pad=0.01, fraction=0.02)
    bar.ax.set_yticklabels([f"{min(bound, 1):g}" for bound in bounds], fontsize=7)
    one = count(cells)
    area.set_title(f"The lowest mean recall of {one['cells']:,} cells at target {target}; numbers: below it, in percent, "
                   f"in brackets where the reply says so ({one['said']} cells; {one['silent']} silent)",
                   fontsize=10, pad=26)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def save(report, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in report.items() if name != "before"}
    words = "\n".join(table(report, out.with_suffix(".png").name)) + "\n"
    for path, text in ((out, json.dumps(own).replace('}, {"data"', '},\n{"data"')), (out.with_suffix(".md"), words)):
        # A run that is ended half way leaves what it has.
        part = path.with_name(path.name + ".part")
        part.write_text(text)
        part.replace(path)
    try:
        plot(report, out.with_suffix(".png"))
    except ImportError:
        print("matplotlib is not installed: no picture", file=sys.stderr)


