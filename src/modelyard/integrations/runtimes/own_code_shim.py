"""Runs own code behind a Unix socket, with the interpreter and the packages of its own environment.

    python -I -S -B own_code_shim.py CONFIG.json

For Python 3.9 and later; needs NumPy and, of ours, only `own_code_frames.py` beside it: both are found by path, in an
environment where Modelyard is not installed. It raises the last wall (seccomp) before any package or model code is
imported, loads the model once, listens on the socket that it was given, and answers frames one at a time. While a run
takes long, a second thread says that the process lives; a run that takes too long ends the process.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ANN204, B905, BLE001, D102, FBT003, ICN001, PLR2004, PLW0603, PTH100, PTH118, PTH120, PTH123, SIM105, SLF001, T201, UP031
# mypy: ignore-errors
# It runs on interpreters from 3.9 on, outside our own process: plain constructs, no annotations to evaluate.
import collections
import ctypes
import importlib.util
import json
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback

_BESIDE = importlib.util.spec_from_file_location(
    "own_code_frames", os.path.join(os.path.dirname(os.path.abspath(__file__)), "own_code_frames.py")
)
frames = importlib.util.module_from_spec(_BESIDE)
_BESIDE.loader.exec_module(frames)

WINDOW = 8
EXIT_REFUSED = 78
EXIT_HUNG = 70
_CHUNK = 1 << 18
_TEXT = 2000
_HEARTBEAT_S = 1.0
_HARD_STOP_S = 5.0
_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}


class AnswerUnfit(Exception):
    """What `predict` gave is not what the configuration promises."""


class Model:
    """The code of the bundle, between the arrays of requests and those of answers."""

    def __init__(self, config):
        self.inputs = config["inputs"]
        self.outputs = config["outputs"]
        self.labelling = config["labelling"]
        self.as_frame = config["inputs_as"] == "frame"
        sys.path.insert(0, config["package"])
        import predict

        if self.as_frame:
            global pandas
            import pandas
        loaded = predict.load(config["package"])
        if loaded is not None:
            predict.model = loaded
        self._predict = predict.predict
        self._predict_stream = getattr(predict, "predict_stream", None)
        self.streams = self._predict_stream is not None

    def run(self, tensors):
        """The promised outputs for one batch."""
        return self._promised(self._predict(self._frame(tensors) if self.as_frame else tensors))

    def stream(self, tensors):
        """The promised outputs of one request, part by part; closing it closes what the code gave."""
        if self._predict_stream is None:
            raise AnswerUnfit("predict.py has no predict_stream")
        parts = iter(self._predict_stream(self._frame(tensors) if self.as_frame else tensors))
        try:
            for part in parts:
                yield self._promised(part)
        finally:
            getattr(parts, "close", lambda: None)()

    def _promised(self, answer):
        named = self._named(answer)
        answers = {spec["name"]: _fit(named, spec) for spec in self.outputs}
        return _labelled(answers, self.labelling) if self.labelling else answers

    def _frame(self, tensors):
        columns = {}
        for spec in self.inputs:
            column = tensors[spec["name"]].reshape(-1)
            columns[spec["name"]] = _decoded(column) if spec["datatype"] == "BYTES" else column
        return pandas.DataFrame(columns)

    def _named(self, answer):
        if isinstance(answer, dict):
            return answer
        if hasattr(answer, "columns") and hasattr(answer, "to_numpy"):
            if len(self.outputs) == 1 and self.outputs[0]["name"] not in answer.columns:
                return {self.outputs[0]["name"]: answer.to_numpy()}
            return {str(name): answer[name].to_numpy() for name in answer.columns}
        if hasattr(answer, "to_numpy"):
            answer = answer.to_numpy()
        if len(self.outputs) == 1:
            return {self.outputs[0]["name"]: answer}
        if isinstance(answer, (list, tuple)) and len(answer) == len(self.outputs):
            return {spec["name"]: item for spec, item in zip(self.outputs, answer)}
        names = ", ".join(spec["name"] for spec in self.outputs)
        raise AnswerUnfit("predict gave a %s where outputs by name are wanted: %s" % (type(answer).__name__, names))


def _decoded(column):
    texts = numpy.empty(len(column), dtype=object)
    texts[:] = [item.decode("utf-8", "replace") for item in column]
    return texts


def _labelled(answers, rule):
    """The answers with the label of each row before them, as `inference/hosting/labelling.py` adds it elsewhere."""
    values = answers[rule["source"]]
    labels = numpy.empty(len(rule["labels"]), dtype=object)
    labels[:] = [label.encode() for label in rule["labels"]]
    rows = values.reshape(len(values), -1)
    if rule["rule"] == "index":
        positions = rows[:, 0].astype(numpy.intp)
    else:
        positions = rows.argmax(axis=1) if rows.shape[1] > 1 else (rows[:, 0] > 0.5).astype(numpy.intp)
    return dict([(rule["output"], labels[positions])], **answers)


def _fit(named, spec):
    """One output in its promised datatype and shape, or `AnswerUnfit`."""
    name, wanted = spec["name"], spec["shape"]
    if name not in named:
        raise AnswerUnfit("predict gave no output %r, only %s" % (name, ", ".join(sorted(map(str, named)))[:200]))
    array = numpy.asarray(named[name])
    if spec["datatype"] == "BYTES":
        array = _as_bytes(array)
    else:
        dtype = numpy.dtype(_DTYPES[spec["datatype"]])
        if array.dtype != dtype:
            if not _castable(array, dtype):
                raise AnswerUnfit("the output %r is %s, promised is %s" % (name, array.dtype, spec["datatype"]))
            array = array.astype(dtype)
    if array.ndim == len(wanted) - 1 and wanted[-1] == 1:
        array = array.reshape((*array.shape, 1))
    elif array.ndim == len(wanted) + 1 and array.shape[-1] == 1:
        array = array.reshape(array.shape[:-1])
    fits = array.ndim == len(wanted) and all(want in (-1, size) for want, size in zip(wanted, array.shape))
    if not fits:
        raise AnswerUnfit("the output %r has the shape %s, promised is %s" % (name, list(array.shape), list(wanted)))
    return array


def _castable(array, dtype):
    if numpy.can_cast(array.dtype, dtype, "same_kind"):
        return True
    whole = array.dtype.kind in "iu" and dtype.kind in "iu"
    return array.dtype.kind == "O" or (whole and array.size and (array.astype(dtype) == array).all())


def _as_bytes(array):
    values = numpy.empty(array.size, dtype=object)
    values[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return values.reshape(array.shape)


class Connection:
    """One model server that asks. The heartbeat writes too, so writing is under a lock."""

    def __init__(self, channel, number):
        self.channel = channel
        self.number = number
        self.dropped = set()
        self.allowed = {}
        self.gone = False
        self.buffer = bytearray()
        self.lock = threading.Lock()

    def send(self, data):
        with self.lock:
            try:
                self.channel.sendall(data)
            except OSError:
                pass  # it is gone: reading will say so

    def frames(self, data):
        buffer = self.buffer
        buffer += data
        while len(buffer) >= frames.PREFIX.size:
            length, kind, number = frames.PREFIX.unpack_from(buffer)
            end = frames.LENGTH.size + length
            if len(buffer) < end:
                return
            payload = bytes(memoryview(buffer)[frames.PREFIX.size : end])
            del buffer[:end]
            yield kind, number, payload


class Diary:
    """Which run is under way, in 16 mapped bytes that outlive the process (`inference/routing/workers/diary.py`)."""

    def __init__(self, path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, 16)
        self.cells = mmap.mmap(descriptor, 16)
        os.close(descriptor)

    def note(self, connection, number):
        struct.pack_into("<QQ", self.cells, 0, connection, number)


class Server:
    """Listens, runs one batch at a time on the main thread, and watches over it from another."""

    def __init__(self, model, listener, hello, limit_s, diary):
        self.model = model
        self.diary = diary
        self.accepted = 0
        self.waiting = collections.deque()
        self.listener = listener
        self.hello = hello
        self.limit_s = limit_s
        self.connections = {}
        self.busy = None
        self.stopping = False
        self.selector = selectors.DefaultSelector()

    def serve(self):
        """Answer until SIGTERM; what has been read by then is answered."""
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        signal.signal(signal.SIGTERM, self._stop)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.selector.register(wake, selectors.EVENT_READ, wake)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self.wake = wake
        while not self.stopping:
            self._listen(0 if self.waiting else None)
            self._run_next()
        while self.waiting:
            self._run_next()

    def _listen(self, wait_s):
        """Take what comes within that time; None waits for something."""
        for key, _ in self.selector.select(wait_s):
            if key.data is None:
                self._accept()
            elif key.data is self.wake:
                self.wake.recv(64)
            else:
                self._read(key.data)

    def _stop(self, number, stack):
        self.stopping = True

    def _accept(self):
        try:
            channel, _ = self.listener.accept()
        except OSError:
            return
        channel.setblocking(True)
        self.accepted += 1
        connection = Connection(channel, self.accepted)
        self.connections[channel.fileno()] = connection
        self.selector.register(channel, selectors.EVENT_READ, connection)
        connection.send(frames.frame(frames.HELLO, connection.number, self.hello))

    def _read(self, connection):
        try:
            data = connection.channel.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            connection.gone = True
            self.selector.unregister(connection.channel)
            self.connections.pop(connection.channel.fileno(), None)
            connection.channel.close()
            return
        for kind, number, payload in connection.frames(data):
            if kind in (frames.RUN, frames.STREAM):
                until = time.monotonic() + frames.LENGTH.unpack_from(payload)[0] / 1000
                work = self._stream if kind == frames.STREAM else self._run
                self.waiting.append((work, connection, number, payload[frames.LENGTH.size :], until))
            elif kind == frames.MORE:
                connection.allowed[number] = connection.allowed.get(number, 0) + 1
            elif kind == frames.DROP:
                connection.dropped.add(number)
            elif kind == frames.PING:
                connection.send(frames.frame(frames.PONG, number))

    def _run_next(self):
        """The oldest run that somebody waits for still."""
        if not self.waiting:
            return
        work, connection, number, payload, until = self.waiting.popleft()
        if number in connection.dropped or time.monotonic() >= until:
            connection.dropped.discard(number)
            connection.send(frames.frame(frames.DROPPED, number))
            return
        self.diary.note(connection.number, number)
        work(connection, number, payload, until)
        self.diary.note(0, 0)

    def _stream(self, connection, number, payload, until):
        """Send part by part, never more than the other end allows, as long as somebody wants them."""
        connection.allowed[number] = WINDOW
        parts, last = None, frames.frame(frames.END, number)
        try:
            self.busy = (time.monotonic(), connection, number)
            parts = self.model.stream(frames.unpack_tensors(payload))
            for tensors in parts:
                self.busy = None  # waiting for the other end is not the code's time
                connection.send(frames.frame(frames.PART, number, frames.pack_tensors(tensors)))
                connection.allowed[number] -= 1
                if not self._may_go_on(connection, number, until):
                    last = frames.frame(frames.DROPPED, number)
                    break
                self.busy = (time.monotonic(), connection, number)
        except Exception as error:
            last = self._failure(error, number)
        try:
            if parts is not None:
                parts.close()
        except Exception:
            traceback.print_exc(limit=-8)
        self.busy = None
        connection.allowed.pop(number, None)
        connection.dropped.discard(number)
        connection.send(last)

    def _may_go_on(self, connection, number, until):
        """Wait until one more part is allowed; False when nobody wants it any more."""
        self._listen(0)
        while True:
            left_s = until - time.monotonic()
            if connection.gone or number in connection.dropped or left_s <= 0:
                return False
            if connection.allowed[number] > 0:
                return True
            self._listen(min(left_s, 1.0))

    def _failure(self, error, number):
        traceback.print_exc(limit=-8)
        text = ("%s: %s" % (type(error).__name__, error))[:_TEXT]
        transient = isinstance(error, (ConnectionError, TimeoutError))
        bound = "memory" if isinstance(error, MemoryError) else ""
        return frames.frame(frames.FAILURE, number, frames.pack({"text": text, "transient": transient, "bound": bound}))

    def _run(self, connection, number, payload, until):
        self.busy = (time.monotonic(), connection, number)
        try:
            answer = frames.frame(
                frames.ANSWER, number, frames.pack_tensors(self.model.run(frames.unpack_tensors(payload)))
            )
        except Exception as error:
            answer = self._failure(error, number)
        self.busy = None
        connection.send(answer)

    def _watch(self):
        """Every second: postpone the kernel's alarm, say that a long run is under way, end one that is too long."""
        while True:
            signal.setitimer(signal.ITIMER_REAL, self.limit_s + _HARD_STOP_S)
            time.sleep(_HEARTBEAT_S)
            busy = self.busy
            if busy is None:
                continue
            began, connection, number = busy
            took = time.monotonic() - began
            if took > self.limit_s:
                text = "predict() did not return within %g s" % self.limit_s
                for thread, stack in sys._current_frames().items():
                    if thread == threading.main_thread().ident:
                        traceback.print_stack(stack, limit=-8)
                connection.send(frames.frame(frames.FAILURE, number, frames.pack({"text": text, "bound": "time"})))
                print(text, file=sys.stderr, flush=True)
                os._exit(EXIT_HUNG)
            for each in list(self.connections.values()):
                each.send(frames.frame(frames.PONG, 0))


def raise_wall(code):
    """Put the seccomp filter over this process; False when the kernel does not take it (seccomp(2))."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    buffer = ctypes.create_string_buffer(code)
    program = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0


def take_title(title):
    """Write `title` over the memory of the command line, which is what `ps` shows (proc(5), arg_start)."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        text = title.encode()[: end - start - 1]
        ctypes.memmove(start, text + b"\0" * (end - start - len(text)), end - start)
        ctypes.CDLL(None).prctl(15, title.encode()[-15:], 0, 0, 0)
    except (OSError, ValueError, IndexError):
        pass  # only the name in lists of processes


def warm_up(model, config):
    """Seconds of one run. Where the bundle gives an example it must be answered; made-up rows may be refused."""
    tensors = {item["name"]: _tensor(item) for item in config["example"]}
    best = None
    if config["golden"]:
        require_golden(model.run(tensors), config["golden"])
    for _ in range(3):
        began = time.perf_counter()
        try:
            model.run(tensors)
        except AnswerUnfit:
            raise
        except Exception:
            if config["example_is_given"]:
                raise
            print("rows that were made up from the contract are not answered; serving all the same", file=sys.stderr)
            traceback.print_exc(limit=-4)
            return 0.0
        took = time.perf_counter() - began
        best = took if best is None else min(best, took)
    return best


def require_golden(answers, golden):
    """The recorded answer, within what `inference/hosting/golden.py` allows elsewhere."""
    for item in golden:
        got, want = answers[item["name"]].ravel(), _tensor(item).ravel()
        if item["datatype"] == "BYTES":
            same = got.tolist() == want.tolist()
        else:
            same = got.size == want.size and numpy.allclose(got.astype("f8"), want.astype("f8"), 1e-4, 1e-5, True)
        if not same:
            raise AnswerUnfit("the output %r differs from the answer that the audit recorded" % item["name"])


def _tensor(item):
    if item["datatype"] == "BYTES":
        values = numpy.empty(len(item["data"]), dtype=object)
        values[:] = [str(value).encode() for value in item["data"]]
        return values.reshape(item["shape"])
    return numpy.array(item["data"], dtype=_DTYPES[item["datatype"]]).reshape(item["shape"])


def memory_bytes():
    """Resident memory of this process."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(argv):
    """Serve until the end; the exit code."""
    with open(argv[1], "rb") as stream:
        config = json.load(stream)
    take_title(config["title"])
    code = bytes.fromhex(config["filter"])
    if code and not raise_wall(code) and config["wall_needed"]:
        print("no wall stands between this code and the network; it is not run", file=sys.stderr)
        return EXIT_REFUSED
    began = time.perf_counter()
    try:
        global numpy
        import site

        sys.prefix = sys.exec_prefix = config["environment"]
        site.addsitedir(config["site"])
        import numpy

        before = memory_bytes()
        model = Model(config)
        run_s = warm_up(model, config)
    except BaseException as error:
        traceback.print_exc(limit=-12)
        print(_why(error), file=sys.stderr, flush=True)
        return EXIT_REFUSED
    hello = {
        "pid": os.getpid(),
        "digest": config["digest"],
        "device": "cpu",
        "memory_bytes": max(0, memory_bytes() - before),
        "load_s": time.perf_counter() - began,
        "run_s": run_s,
        "streams": model.streams,
    }
    listener = socket.socket(fileno=config["listener_fd"])
    listener.listen(64)
    if config["ready_fd"] is not None:
        try:
            os.write(config["ready_fd"], b"ready\n")
        except BrokenPipeError:
            pass
        os.close(config["ready_fd"])
    Server(model, listener, frames.pack(hello), config["run_limit_s"], Diary(config["diary"])).serve()
    return 0


def _why(error):
    if isinstance(error, ModuleNotFoundError):
        return "the code imports %s, which requirements.lock does not name" % error.name
    if isinstance(error, SystemExit):
        return "the code ended the process with exit(%s) while it was loaded" % error.code
    return ("the code cannot be loaded: %s: %s" % (type(error).__name__, error))[:_TEXT].replace("\n", " ")


if __name__ == "__main__":
    status = main(sys.argv)
    sys.stderr.flush()
    os._exit(status)
