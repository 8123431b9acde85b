"""Tables by columns: cells as numbers, what is missing or strange, and groups made of the same columns."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.data.shifts import SHIFTS, apply_shift, sample_seeds
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.signature import Signature, TensorSpec
from onnxptq.tasks import make_task

COLUMNS = [
    "age",
    {"name": "sex", "values": {"Male": 1, "Female": 0}},
    {"name": "plan", "one_hot": ["basic", "family"], "unknown": "zero"},
    {"name": "income", "missing": 10, "mean": 40, "std": 20},
]
ROW = {"_name": "row 0", "age": 31, "sex": "Female", "plan": "family", "income": 80.0}


def signature(width=5, *inputs):
    specs = inputs or (TensorSpec("x", "float32", (None, width)),)
    return Signature(tuple(specs), (TensorSpec("y", "float32", (None, 2)),))


def task(columns=COLUMNS, made=None):
    given = {} if columns is None else {"columns": columns}
    return make_task("table-classification", {**given, "classes": ["no", "yes"]}, made or signature())


def fed(rows, made=None):
    made = made or task()
    return made.feeds(made.load(rows))


def test_cells_become_numbers_in_the_order_of_the_specification():
    x = fed([ROW, {**ROW, "sex": "Male", "plan": "basic", "income": 40}])["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [[31, 0, 0, 1, 2], [31, 1, 1, 0, 0]])


@pytest.mark.parametrize("nothing", [None, "", " ", "NA", "n/a", "NaN", "null", "?", float("nan")])
def test_what_is_missing_counts_as_the_specification_says(nothing):
    np.testing.assert_array_equal(fed([{**ROW, "income": nothing}])["x"][0, 4], (10 - 40) / 20)
    np.testing.assert_array_equal(fed([{**ROW, "plan": nothing}])["x"][0, 2:4], [0, 0])
    for column in ("age", "sex"):
        with pytest.raises(DataError, match=rf"row 0: column '{column}' has nothing"):
            fed([{**ROW, column: nothing}])


@pytest.mark.parametrize("cell", [1, 1.0, True, "1", " 1 ", np.array(1)])
def test_numbers_are_read_however_they_are_stored(cell):
    assert fed([{**ROW, "age": cell}])["x"][0, 0] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": "many"}, "no number"),
        ({"age": float("inf")}, "not finite"),
        ({"sex": "male"}, "'Female' or 'Male'"),
    ],
)
def test_cells_that_mean_nothing_are_named(change, words):
    with pytest.raises(DataError, match=words):
        fed([{**ROW, **change}])
    assert words.split()[-1] in (task().input.defect({**ROW, **change}) or "")
    assert task().input.defect(ROW) is None


def test_categories_are_equal_however_csv_and_parquet_store_them():
    made = task([{"name": "code", "one_hot": [1, 2, 3]}], signature(3))
    for cell in (2, 2.0, "2"):
        np.testing.assert_array_equal(fed([{"code": cell}], made)["x"], [[0, 1, 0]])


def test_each_input_is_a_column_of_its_name_where_nobody_says_more():
    specs = (
        TensorSpec("age", "float32", (None, 1)),
        TensorSpec("visits", "int64", (None,)),
        TensorSpec("plan", "object", (None, 1)),
    )
    got = fed(
        [{"age": 3, "visits": 4.0, "plan": "x"}, {"age": 5, "visits": 6, "plan": None}],
        task(None, signature(0, *specs)),
    )
    np.testing.assert_array_equal(got["age"], [[3], [5]])
    np.testing.assert_array_equal(got["visits"], [4, 6])
    assert got["plan"].tolist() == [["x"], [""]] and got["visits"].dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "made", "error", "words"),
    [
        (["age"], signature(), ModelError, "makes 1 numbers a row"),
        (["age", "age"], signature(2), UsageError, "twice"),
        ([{"name": "a", "valuess": {}}], signature(1), UsageError, "'values'"),
        ([{"name": "a", "values": {"x": "y"}}], signature(1), UsageError, "number for each"),
        ([{"name": "a", "values": {"x": 1}, "one_hot": ["x"]}], signature(1), UsageError, "not both"),
        ([{"name": "a", "std": 0}], signature(1), UsageError, "above 0"),
        ([{"name": "a", "one_hot": ["x"], "mean": 1}], signature(1), UsageError, "no mean"),
        ("age", signature(1), UsageError, "list of columns"),
        ([3], signature(1), UsageError, "its name or"),
        ({"z": ["age"]}, signature(1), UsageError, "no input 'z'"),
        (
            ["age"],
            signature(0, TensorSpec("a", "float32", (None, 1)), TensorSpec("b", "float32", (None, 1))),
            UsageError,
            "a list for each",
        ),
    ],
)
def test_a_specification_that_is_wrong_is_refused(columns, made, error, words):
    with pytest.raises(error, match=words):
        task(columns, made)


def test_the_specification_rebuilds_the_input():
    made = task()
    again = make_task(made.name, json.loads(json.dumps(made.specification)), signature())
    np.testing.assert_array_equal(fed([ROW], again)["x"], fed([ROW])["x"])


def test_facts_are_in_the_columns_own_units():
    facts = task().input_facts()["x"]
    assert facts.kind == "table" and facts.means[4] == 40 and facts.deviations == (1, 1, 1, 1, 20)


TABLES = ("missing_values", "wrong_unit", "column_shift", "tensor_noise")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("severity", [1, 5])
def test_shifts_change_columns_by_their_own_spread(name, severity):
    made = task()
    batch = made.load([{**ROW, "age": 20 + i} for i in range(50)])
    before = batch["x"].copy()
    seeds = sample_seeds(0, [str(i) for i in range(50)])
    shifted = apply_shift(SHIFTS.get(name), batch, severity, seeds, facts=made.input_facts())["x"]
    assert np.array_equal(batch["x"], before) and np.isfinite(shifted).all()
    changed = shifted != before
    if name == "missing_values":
        np.testing.assert_array_equal(shifted[changed[:, 4], 4], 40)
        assert abs(changed[:, [0, 4]].mean() - (0.1, 0, 0, 0, 0.8)[severity - 1]) < 0.12
    elif name == "wrong_unit":
        assert (changed.sum(axis=1) <= 1).all() and changed.any()
    elif name == "column_shift":
        moved = (0.25, 0, 0, 0, 3)[severity - 1] * np.array([1, 1, 1, 1, 20])
        np.testing.assert_allclose(shifted - before, np.broadcast_to(moved, before.shape))
    else:
        assert np.abs(shifted - before)[:, 4].mean() > 5 * np.abs(shifted - before)[:, 0].mean()


def test_shifts_of_tables_are_for_tables():
    pixels = Signature((TensorSpec("x", "float32", (None, 3, 8)),), (TensorSpec("y", "float32", (None, 2)),))
    assert "tables" in (make_task("tensor-raw", {}, pixels).fits("wrong_unit") or "")
    assert task().fits("wrong_unit") is None


def table_model(path, width=5):
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(width, 8)), "v": generator.normal(size=(8, 2))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    path.with_suffix(".json").write_text(json.dumps({"columns": COLUMNS, "classes": ["no", "yes"]}))


def rows(count=160):
    rng = np.random.default_rng(3)
    for i in range(count):
        age, income, label = int(rng.integers(18, 80)), int(rng.integers(9, 90)), ("no", "yes")[int(rng.integers(2))]
        yield [age, ("Male", "Female")[i % 2], ("basic", "family", "odd")[i % 3], income, label]


def write_csv(path, changes=None):
    lines = [",".join(map(str, row)) for row in rows()]
    for number, line in (changes or {}).items():
        lines[number] = line
    path.write_text("age,sex,plan,income,label\n" + "\n".join(lines) + "\n")


def test_csv_jsonl_and_parquet_give_one_file_and_groups_of_its_own_columns(run_here, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table_model(tmp_path / "m.onnx")
    write_csv(tmp_path / "d.csv")
    keys = ["age", "sex", "plan", "income", "label"]
    found = [dict(zip(keys, row, strict=True)) for row in rows()]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, found)))
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "d.parquet")
    for name in ("d.csv", "d.jsonl", "d.parquet"):
        words = f"quantize m.onnx --data {name} --group sex --group plan -o {name}.onnx --json {name}.json"
        done = run_here(words.split(), tmp_path, {})
        assert done.returncode == 0, done.stderr
    reports = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("d.csv", "d.jsonl", "d.parquet")]
    assert {group["name"] for group in reports[0]["groups"]} == {
        *("sex=Male", "sex=Female", "plan=basic", "plan=family", "plan=odd")
    }
    assert reports[0]["groups"] == reports[1]["groups"] == reports[2]["groups"]


def test_bad_rows_are_named_with_their_column_or_left_out_and_counted(run_here, tmp_path):
    table_model(tmp_path / "m.onnx")
    write_csv(tmp_path / "d.csv", {7: ",Male,basic,20,no", 9: "40,Robot,basic,20,no"})
    words = ["quantize", "m.onnx", "--data", "d.csv", "--group", "sex", "-o", "q.onnx"]
    stopped = run_here(words, tmp_path, {})
    assert stopped.returncode == 2 and "d.csv: row 7: column 'age' has nothing" in stopped.stderr
    done = run_here([*words, "--skip-bad"], tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert "left out 2 bad samples" in done.stderr and "'Robot'" in done.stderr


def test_a_table_without_a_column_of_the_model_is_refused(run_here, tmp_path):
    table_model(tmp_path / "m.onnx")
    (tmp_path / "d.csv").write_text("age,sex,plan,label\n1,Male,basic,no\n2,Male,basic,yes\n")
    done = run_here(["quantize", "m.onnx", "--data", "d.csv", "-o", "q.onnx"], tmp_path, {})
    assert done.returncode == 2 and "no column 'income'" in done.stderr


def test_columns_of_numbers_are_inputs_of_tensor_models(run_here, tmp_path):
    table_model(tmp_path / "m.onnx", 2)
    (tmp_path / "m.json").unlink()
    model = onnx.load(tmp_path / "m.onnx")
    join = helper.make_node("Concat", ["age", "income"], ["x"], axis=1)
    model.graph.node.insert(0, join)
    del model.graph.input[:]
    for name in ("age", "income"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]))
    onnx.save(model, tmp_path / "m.onnx")
    write_csv(tmp_path / "d.csv")
    words = "quantize m.onnx --data d.csv --head classification --group sex -o q.onnx"
    done = run_here(words.split(), tmp_path, {})
    assert done.returncode == 0, done.stderr


def test_compas_by_columns_is_what_its_arrays_are(shared):
    arrays = np.load(shared / "data" / "compas" / "eval.npz")
    columns = ["age", "priors", "fel", "misd", "other", "screening", "compas", "felony", "male"]
    made = task(columns, signature(9))
    found = fed([dict(zip(columns, row.tolist(), strict=True)) for row in arrays["x"][:100]], made)["x"]
    np.testing.assert_array_equal(found, arrays["x"][:100])
