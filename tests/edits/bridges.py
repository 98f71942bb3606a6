"""The edits of the bridges."""

from tests.edits.edit import Edit, commented, renamed, replace, unparsed
from tests.kit.twins import edit

REMOTE = "bridges/_remote"

RUN_SYNC = [
    Edit(
        "catches nothing but Exception",
        replace("_Job.run", "except BaseException", "except Exception"),
        "RS-1",
        "RS-2 RS-5 RS-6 RS-7",
    ),
    Edit(
        "does one call at a time",
        edit("", "_KEPT = 8", "_KEPT = 8\n_one_at_a_time = threading.Lock()")
        + edit("_run_elsewhere", "helper.do(job)", "with _one_at_a_time:\n    helper.do(job)"),
        "RS-2",
        "RS-1 RS-5 RS-7",
    ),
    Edit(
        "runs the coroutine in an empty context",
        edit("_Job.__init__", "copy_context()", "Context()"),
        "RS-3",
    ),
    Edit(
        "keeps a loop whatever was left on it",
        edit("_run", "loop.is_as_new() and loops.put(loop)", "loops.put(loop)"),
        "RS-4",
        "RS-7",
    ),
    Edit(
        "does not wait for the clean-up after an interrupt",
        edit("_Helper.do", "while waiting and not self._is_blocked: ...", ""),
        "RS-5",
        "RS-7",
    ),
    Edit(
        "leaves a refused coroutine open",
        edit(
            "run_sync",
            "if native.cr_frame is not None "
            "and not (native.cr_running or native.cr_suspended): ...",
            "pass",
        ),
        "RS-6",
        "RS-2 RS-5 RS-7",
    ),
    Edit(
        "keeps every loop that it has made",
        edit(
            "_Shelf.put",
            "self._closed or len(self._things) >= _KEPT",
            "self._closed",
        ),
        "RS-7",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private function by another name", renamed("_within", "_with_timeout")),
]

ASYNC_RUNNER = [
    Edit(
        "cancels the future and not the task",
        edit("_Submission._cancel", "self.request_cancel()", ""),
        "AR-1",
        "AR-2 AR-5",
    ),
    Edit(
        "does not join its thread",
        edit("AsyncRunner.close", "_join(self._thread)", ""),
        "AR-2",
    ),
    Edit(
        "leaves asynchronous generators open",
        edit("AsyncRunner._wind_down", "await loop.shutdown_asyncgens()", ""),
        "AR-2",
    ),
    Edit(
        "accepts without the lock",
        edit("AsyncRunner._accept", "with self._lock: ...", "..."),
        "AR-3",
        "AR-1 AR-2",
    ),
    Edit(
        "does not look in which thread it is",
        edit("AsyncRunner._submit", "self._check_thread()", ""),
        "AR-4",
        "AR-2",
    ),
    Edit(
        "raises TimeoutError without waiting for the clean-up",
        edit(
            "AsyncRunner.run",
            "submission.request_cancel()\noutcome.wait()",
            "submission.cancel()\noutcome.is_cancelled = True",
        ),
        "AR-5",
        "AR-1",
    ),
    Edit(
        "starts each coroutine in an empty context",
        edit(
            "",
            "from contextvars import copy_context",
            "from contextvars import Context, copy_context",
        )
        + edit("AsyncRunner._accept", "copy_context()", "Context()"),
        "AR-6",
    ),
    Edit(
        "lets SystemExit end its thread",
        replace("AsyncRunner._run_loop", "(SystemExit, KeyboardInterrupt)", "KeyboardInterrupt"),
        "AR-1",
        "AR-2",
    ),
    Edit("has another layout", unparsed()),
    Edit("has a comment", commented("def _begin(", "The coroutine's first step comes later.")),
]

PARALLEL_EXECUTE = [
    Edit(
        "gives the results as they come",
        edit("_Call.draw", "if books.in_order: ...", "")
        + edit("_Books.keep", "self.results[index] = result", "self.results.append(result)"),
        "PE-1",
        "PE-2 PE-4 PE-5 PE-8 PE-10",
    ),
    Edit(
        "makes an exception of its own of each error",
        edit(
            "_InThreads.work_off",
            "outcome = Failure(key, error)",
            "outcome = Failure(key, RuntimeError(str(error)))",
        ),
        "PE-2",
        "PE-4 PE-6 PE-10 PE-11",
    ),
    Edit(
        "starts one thread more",
        edit(
            "_InThreads.lacks_threads_locked",
            "len(self.threads) >= self.options.max_workers",
            "len(self.threads) > self.options.max_workers",
        ),
        "PE-3",
        "PE-11",
    ),
    Edit(
        "draws all keys at once",
        edit("_checked", "drawn = iter(keys)", "drawn = iter(list(keys))"),
        "PE-3",
        "PE-4 PE-6 PE-11",
    ),
    Edit(
        "waits for threads that are stuck",
        edit("_Call.join", "() if self.stuck else self.threads", "self.threads"),
        "PE-4",
        "PE-11",
    ),
    Edit(
        "goes on after the first failure",
        edit(
            "_Call.settle_locked",
            "if outcome.is_failure and self.options.fail_fast: ...",
            "",
        ),
        "PE-5",
        "PE-11",
    ),
    Edit(
        "makes a Failure of KeyboardInterrupt",
        edit("_InThreads.work_off", "outcome = error", "outcome = Failure(key, error)"),
        "PE-6",
        "PE-11",
    ),
    Edit(
        "calls the operation in the thread's own context",
        edit(
            "_InThreads.work_off",
            "self.context.copy().run(self.operation, key)",
            "self.operation(key)",
        ),
        "PE-7",
    ),
    Edit(
        "lets a broken pool end the call",
        replace("_InExecutor.submit", "except Exception", "except TimeoutError"),
        "PE-8",
        "PE-11",
    ),
    Edit(
        "says nothing of many workers",
        edit("_checked", "if workers > 100: ...", ""),
        "PE-9",
    ),
    Edit(
        "expects nothing but a TypeError of len()",
        replace("_length", "except Exception", "except TypeError"),
        "PE-10",
    ),
    Edit(
        "lets errors travel as they are",
        replace("call_remotely", "except Exception", "except ImportError"),
        "PE-10",
        "PE-2 PE-8",
        file=REMOTE,
    ),
    Edit(
        "draws the next key before it gives a result",
        replace("_Call.run", "elif self.books.unread:", "elif False:"),
        "PE-11",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private function by another name", renamed("_ring", "_wake")),
]

ASYNC_PARALLEL_EXECUTE = [
    Edit(
        "gives the results as they come",
        edit("_Collected._settle", "self._places[index] = result", "self._places.append(result)")
        + edit("_Collected._settle", "if index >= len(self._places): ...", ""),
        "AP-1",
        "AP-4 AP-5",
    ),
    Edit(
        "runs one operation more",
        edit(
            "async_as_completed._is_full",
            "len(self._running) + len(self._ready) >= self._limit",
            "len(self._running) + len(self._ready) > self._limit",
        ),
        "AP-2",
        "AP-5",
    ),
    Edit(
        "does not wait for what it cancels",
        edit(
            "async_as_completed._leave",
            "while tasks := "
            "[task for task in (*self._feeder, *self._running) if not task.done()]: ...",
            "",
        ),
        "AP-3",
        "AP-6 AP-4 AP-5",
    ),
    Edit(
        "takes an operation's own CancelledError for a cancellation",
        edit("_run", "if asyncio.current_task() in doomed: ...", "raise"),
        "AP-4",
        "AP-1",
    ),
    Edit(
        "leaves an async key source waiting at the deadline",
        edit("async_as_completed._expire", "self._hurry(self._drawn, _TURNS)", ""),
        "AP-4",
        "AP-6",
    ),
    Edit(
        "goes on after the first failure",
        edit("async_as_completed._ended", "if self._fail_fast and result.is_failure: ...", ""),
        "AP-5",
    ),
    Edit(
        "does not close its key source",
        edit("async_as_completed._close_source", "if close is not None: ...", ""),
        "AP-6",
        "AP-3 AP-4",
    ),
    Edit(
        "swallows what an operation raises that is no Exception",
        replace("_run", "except Exception as error", "except BaseException as error"),
        "AP-6",
        "AP-3 AP-4 AP-5",
    ),
    Edit(
        "begins operations in the context of its own task",
        edit(
            "async_as_completed._start",
            "self._context.run(self._loop.create_task, _run(self._operation, key, self._doomed))",
            "self._loop.create_task("
            "_run(self._operation, key, self._doomed), context=self._context)",
        ),
        "AP-7",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private method by another name", renamed("_hurry", "_cancel_waiting_source")),
]

FILE_WATCH = [
    Edit(
        "gives a file that is still open",
        edit("_Watcher._check", "_open_for_writing(path)", "None"),
        "FW-1",
        "FW-6",
    ),
    Edit(
        "does not look at what is moved in",
        edit("_Watcher._handle", "self._replaced(target, moved_in=True)", "pass"),
        "FW-1",
        "FW-2 FW-7",
    ),
    Edit(
        "wakes the loop for each file",
        edit("_Inbox.offer", "if self._awake: ...", ""),
        "FW-2",
    ),
    Edit(
        "touches the loop's event from its threads",
        edit(
            "DirectoryWatch.__aenter__",
            "lambda: loop.call_soon_threadsafe(wakeup.set)",
            "wakeup.set",
        ),
        "FW-2",
        "FW-1 FW-3 FW-4 FW-5 FW-6 FW-7 FW-8",
    ),
    Edit(
        "does not scan again after a fault",
        edit("_Watcher.dispatch", 'self._inbox.schedule(_ScanDirectory(""))', ""),
        "FW-3",
    ),
    Edit(
        "says nothing when its directory is gone",
        edit("_Watcher._check_root", "self._inbox.advance(_State.CLOSING, error)", ""),
        "FW-4",
        "FW-7",
    ),
    Edit(
        "leaves without waiting for its threads",
        edit(
            "DirectoryWatch.__aexit__",
            "while self._inbox.state is not _State.ENDED: ...",
            "",
        ),
        "FW-5",
    ),
    Edit(
        "passes over what it cannot examine",
        edit("_Watcher._try_again", "self._inbox.schedule(job, wait)", ""),
        "FW-6",
    ),
    Edit(
        "resolves its path once",
        edit("_Watcher.__init__", "str(path.absolute())", "str(path.resolve())"),
        "FW-7",
    ),
    Edit(
        "compares names as they are",
        edit("name_filter", "name if name.isascii() else _composed(name)", "name"),
        "FW-8",
    ),
    Edit("has another layout", unparsed()),
    Edit("has a comment", commented("def _handle(", "Events come in the observer's thread.")),
]

EDITS = {
    "bridges/run_sync": RUN_SYNC,
    "bridges/async_runner": ASYNC_RUNNER,
    "bridges/parallel_execute": PARALLEL_EXECUTE,
    "bridges/async_parallel_execute": ASYNC_PARALLEL_EXECUTE,
    "bridges/file_watch": FILE_WATCH,
}
