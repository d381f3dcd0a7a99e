"""Neighbours of the corpus: other members of each class of bad upload."""

from collections.abc import Callable
from typing import Any

import pytest

from modelyard.inspection import Inspection

NEIGHBOURS = {
    "an absolute name": ("bundle(files={'/etc/x.md': b'x'})", "path_unsafe"),
    "a drive": ("bundle(files={'C:x.md': b'x'})", "path_unsafe"),
    "full-width dots that normalise to a path": ("bundle(files={'\\uff0e\\uff0e/x.md': b'x'})", "path_unsafe"),
    "thrice encoded": ("bundle(files={'%25252e%25252e%25252fx': b'x'})", "path_unsafe"),
    "two names that differ in case": ("bundle(files={'README.md': b'x', 'readme.md': b'y'})", "name_invalid"),
    "a name too long": ("bundle(files={'a' * 126 + '.md': b'x'})", "name_invalid"),
    "a name that is no text": ("bundle(files={'a\\udcff.md': b'x'})", "name_invalid"),
    "an empty name": ("bundle(files={'': b'x'})", "name_invalid"),
    "a windows program as a card": ("bundle(files={'README.md': b'MZ\\x90\\x00' + bytes(60)})", "type_not_allowed"),
    "user code without its lock file": ("bundle(files={'predict.py': b'x = 1'})", "bundle_mismatch"),
    "code that is not predict.py": ("bundle(files={'model.py': b'x = 1'})", "type_not_allowed"),
    "an unknown ending": ("bundle(files={'run.exe': b'x'})", "type_not_allowed"),
    "config too deep in objects": ("bundle(cfg=b'{\"example\":' * 40 + b'1' + b'}' * 40)", "config_invalid"),
    "config with a byte order mark and duplicates": ('bundle(cfg=b\'{"name":"a","name":"b"}\')', "config_invalid"),
    "a zero dimension": (
        "bundle(cfg=cfg(input={'name': 'x', 'datatype': 'FP32', 'shape': [-1, 0]}))",
        "config_invalid",
    ),
    "a product beyond all memory": (
        "bundle(cfg=cfg(input={'name': 'x', 'datatype': 'FP32', 'shape': [2**30, 2**30]}))",
        "config_invalid",
    ),
    "a datatype that is a list": (
        "bundle(cfg=cfg(input={'name': 'x', 'datatype': ['FP32'], 'shape': [3]}))",
        "config_invalid",
    ),
    "a hydra target": ("bundle(cfg=cfg(example={'_target_': 'os.system'}))", "config_unsafe"),
    "an address in prose": ("bundle(cfg=cfg(description='see https://example.org/x'))", "config_unsafe"),
    "a path in the training data": ("bundle(cfg=cfg(training_data='/etc/passwd'))", "config_unsafe"),
    "a shell substitution": ("bundle(cfg=cfg(description='$(id)'))", "config_unsafe"),
    "yaml anchors": (
        "{**bundle(), 'config.json': b'{}'} and {'weights.safetensors': W, 'model.yaml': b'a: &a [1]\\nb: *a'}",
        "config_unsafe",
    ),
    "yaml merge keys": ("{'weights.safetensors': W, 'model.yaml': b'<<: {name: x}'}", "config_unsafe"),
    "yaml nested flow": ("{'weights.safetensors': W, 'model.yaml': b'[' * 100000}", "config_invalid"),
    "yaml duplicate keys": ("{'weights.safetensors': W, 'model.yaml': b'name: a\\nname: b'}", "config_invalid"),
    "two configs": ("bundle(files={'model.yaml': b'name: x'})", "bundle_mismatch"),
    "labels in a nested list": ('bundle(lab=b\'[["a"],["b"]]\')', "labels_invalid"),
    "a bidirectional override in a label": ("bundle(lab={'0': 'a\\u202eb', '1': 'c'})", "labels_invalid"),
    "keys that are not canonical numbers": ("bundle(lab={'00': 'a', '01': 'b'})", "labels_invalid"),
    "leading spaces before the header": ("bundle(w=st(b'  ' + json.dumps(OKH).encode(), F8))", "weights_format"),
    "overlapping tensors": (
        "bundle(w=st({'w': T('F32', [2, 3], 0, 24), 'b': T('F32', [2], 16, 24), 'c': T('F32', [2], 24, 32)}, F8))",
        "weights_format",
    ),
    "a hole between tensors": (
        "bundle(w=st({'w': T('F32', [2, 2], 0, 16), 'b': T('F32', [2], 24, 32)}, F8))",
        "weights_format",
    ),
    "an extra field of a tensor": (
        "bundle(w=st({'w': {**T('F32', [2, 3], 0, 24), 'x': 1}, 'b': T('F32', [2], 24, 32)}, F8))",
        "weights_format",
    ),
    "infinity in half precision": (
        "bundle(w=st({'w': T('F16', [2, 3], 0, 12), 'b': T('F16', [2], 12, 16)}, bytes(14) + b'\\x00\\x7c'))",
        "weights_values",
    ),
    "NaN in bfloat16": (
        "bundle(w=st({'w': T('BF16', [2, 3], 0, 12), 'b': T('BF16', [2], 12, 16)}, bytes(14) + b'\\xc0\\x7f'))",
        "weights_values",
    ),
    "a name put together with memo": (
        "bundle(w=b'\\x80\\x04\\x8c\\x05posix\\x94\\x8c\\x06system\\x94h\\x00h\\x01\\x93.', wname='m.pkl')",
        "weights_unsafe",
    ),
    "a dotted way out of an allowed module": (
        "bundle(w=b'\\x80\\x04\\x8c\\x07sklearn\\x8c\\x0ebase.os.system\\x93.', wname='m.pkl')",
        "weights_unsafe",
    ),
    "persistent ids": ("bundle(w=b'Pos.system\\n.', wname='m.pkl')", "weights_unsafe"),
    "a state for a class itself": (
        "bundle(w=b'csklearn.tree._classes\\nDecisionTreeClassifier\\n}b.', wname='m.pkl')",
        "weights_unsafe",
    ),
    "a canary behind a zlib stream": ("bundle(w=zlib.compress(canary('z')), wname='m.joblib')", "weights_unsafe"),
    "plain data in a pickle": ("bundle(w=pickle.dumps({'a': 1}), wname='m.pkl')", "weights_format"),
    "a pickle named after numpy": ("bundle(w=canary('n'), wname='weights.npy')", "type_not_allowed"),
    "a legitimate torch file": (
        "bundle(w=zf([('m/data.pkl', pickle.dumps({})), ('m/data/0', b'1')], zipfile.ZIP_STORED), wname='m.pt')",
        "weights_unsafe",
    ),
    "a skops file that names a foreign class": (
        'bundle(w=zf([(\'schema.json\', b\'{"__loader__":"ObjectNode","__class__":"Popen",'
        '"__module__":"subprocess"}\')]),'
        " wname='m.skops')",
        "weights_unsafe",
    ),
    "a skops file with an object array": (
        'bundle(w=zf([(\'schema.json\', b\'{"__loader__":"ObjectNode","__class__":"PCA",'
        "\"__module__\":\"sklearn.decomposition._pca\"}'), ('a.npy', npy(\"'|O'\", '(1,)', canary('s')))]),"
        " wname='m.skops')",
        "weights_unsafe",
    ),
    "a zip symlink": ("{'b.zip': zf([('config.json', b'/etc/passwd', 0o120777)])}", "archive_unsafe"),
    "a zip with bytes behind it": ("{'b.zip': zf(list(bundle().items())) + b'P'}", "archive_invalid"),
    "a zip with two members of one name": ("{'b.zip': zf([('config.json', b'{}')] * 2)}", "archive_invalid"),
    "an archive in an archive": ("{'b.zip': zf([('inner.zip', zf([('a.md', b'x')]))])}", "archive_unsafe"),
    "folders in folders": ("{'b.zip': zf([('a/b/config.json', b'{}')])}", "archive_unsafe"),
    "ten thousand members": ("{'b.zip': zf([('f%d.md' % i, b'') for i in range(10000)])}", "archive_bomb"),
    "a tar hard link": ("{'b.tar': tf([{'name': 'a.md', 'type': b'1', 'linkname': '/etc/passwd'}])}", "archive_unsafe"),
    "a tar that is cut short": ("{'b.tar': tf([{'name': 'a.md', 'data': b'x' * 600}])[:700]}", "archive_invalid"),
    "a gzip bomb around a tar": (
        "{'b.tar.gz': gzip.compress(tf([{'name': 'm.safetensors', 'data': bytes(2**27)}]))}",
        "archive_bomb",
    ),
    "external data by an absolute path": ("bundle(w=onx(xt('/etc/passwd')), wname='m.onnx')", "path_unsafe"),
    "external data that is missing": ("bundle(w=onx(xt('d.bin')), wname='m.onnx')", "bundle_mismatch"),
    "raw data that is not there": (
        "bundle(w=onx(L(5, V(1, 2**40) + V(2, 1) + L(8, 'w') + L(9, b'x'))), wname='m.onnx')",
        "weights_format",
    ),
    "graphs nested a thousand deep": (
        "bundle(w=onx(node=L(1, L(2, 'y') + L(4, 'If') + nestp([5, 6, 1], 400))), wname='m.onnx')",
        "weights_format",
    ),
    "a constant of 2**40 elements": (
        "bundle(w=onx(init=L(5, V(1, 1) + V(2, 7) + L(8, 's') + L(9, struct.pack('<q', 2**40))) + L(12, L(1, 'y')),"
        " node=L(1, L(1, 's') + L(2, 'y') + L(4, 'ConstantOfShape'))), wname='m.onnx')",
        "weights_format",
    ),
    "training graphs": ("bundle(w=onx(extra=L(20, b'')), wname='m.onnx')", "weights_unsafe"),
    "an operator that opens files": (
        "bundle(w=onx(node=L(1, L(2, 'y') + L(4, 'EPContext') + L(7, 'com.microsoft'))), wname='m.onnx')",
        "weights_unsafe",
    ),
    "GGUF with a string longer than the file": (
        "bundle(w=gguf(0, 1, struct.pack('<Q', 2**40)), wname='m.gguf')",
        "weights_format",
    ),
    "a good GGUF": ("bundle(w=gguf(), wname='m.gguf')", "type_not_allowed"),
    "a lambda layer": (
        "bundle(w=keras([{'class_name': 'Lambda', 'module': 'keras.layers'}]), wname='m.keras')",
        "weights_unsafe",
    ),
    "a harmless Keras file": (
        "bundle(w=keras([{'class_name': 'Dense', 'module': 'keras.layers'}]), wname='m.keras')",
        "type_not_allowed",
    ),
    "no files": ("{}", "bundle_mismatch"),
    "too many files": ("{'f%d.md' % i: b'' for i in range(65)}", "too_many_files"),
    "weights without a description": ("{'weights.safetensors': W}", "bundle_mismatch"),
    "a manifest of a file that is not there": (
        "bundle(files={'MANIFEST.json': {'x.onnx': '0' * 64}})",
        "digest_mismatch",
    ),
    "a signature that is no JSON": ("bundle(files={'m.sig': b'\\x00\\x01'})", "signature_invalid"),
    "a sample that is no JSON": ("bundle(files={'sample.json': b'{'})", "type_not_allowed"),
    "labels in XGBoost's place": ("{'classes.json': b'{\"0\": \"a\"}'}", "weights_format"),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_of_the_corpus_is_refused(
    name: str, corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    expression, code = NEIGHBOURS[name]
    done = inspect(corpus(expression))
    assert done.report.refusal is not None
    assert done.report.refusal.code == code, done.report.refusal
    assert done.package_dir is None
