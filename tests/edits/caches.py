"""The edits of the caches."""

from tests.edits.edit import Edit, commented, renamed, replace, unparsed
from tests.kit.twins import edit

UNLOCKED_DELETE = edit(
    "TTLCache.delete", "self._locked(self._delete_locked, key)", "self._delete_locked(key)"
)

TTL_CACHE = [
    Edit(
        "deletes without the lock",
        edit(
            "TTLCache.delete", "self._locked(self._delete_locked, key)", "self._delete_locked(key)"
        ),
        "TC-1 TC-11",
    ),
    Edit(
        "looks up without the lock",
        replace("TTLCache.get", "self._lock.acquire()", "pass")
        + replace("TTLCache.get", "self._lock.release()", "pass"),
        "TC-1 TC-5",
        "TC-3 TC-6",
    ),
    Edit(
        "evicts by writes and not by use",
        replace("TTLCache.get", "newer is not order:", "False:"),
        "TC-4",
    ),
    Edit(
        "reads the wall clock",
        edit("TTLCache.__init__", "time.monotonic", "time.time"),
        "TC-2",
    ),
    Edit(
        "holds one entry more",
        edit("_Store.put", "self.count >= self.max_size", "self.count > self.max_size"),
        "TC-3",
    ),
    Edit(
        "lets a load outlive a delete",
        edit("TTLCache._delete_locked", "self._loads.pop(key, None)", ""),
        "TC-7",
    ),
    Edit(
        "does not look for circles",
        edit("_wait", "_refuse_circle(load, mine.key)", ""),
        "TC-8 TC-13",
    ),
    Edit(
        "tells nobody what it clears",
        edit(
            "TTLCache.clear",
            "_release(self._when_swept(self._clear_locked), self._on_evict)",
            "self._when_swept(self._clear_locked)",
        ),
        "TC-11",
    ),
    Edit(
        "sweeps only when it is asked to",
        edit("_Store.put", "if self.heap and self.heap[0][0] <= now: ...", ""),
        "TC-4 TC-5",
    ),
    Edit(
        "does not store a None that was loaded",
        edit("TTLCache._land_locked", "load.value is not _ABSENT", "load.value is not None"),
        "TC-10",
    ),
    Edit(
        "wakes its waiters only when a load succeeds",
        edit(
            "TTLCache._load_or_join",
            "if not mine.handed_over: ...",
            "if not mine.handed_over and mine.value is not _ABSENT:\n    ...",
        ),
        "TC-6",
    ),
    Edit(
        "counts its entries one by one",
        edit(
            "TTLCache.size",
            "self._when_swept(lambda _: self._store.count - self._store.stale_count)",
            "len(self.keys())",
        ),
        "TC-9",
    ),
    Edit(
        "raises when a refresh fails",
        edit(
            "TTLCache._refresh",
            "return load.result() if load.value is not _ABSENT or found is _ABSENT else found",
            "return load.result()",
        ),
        "TC-12",
    ),
    Edit("calls a private method by another name", renamed("_load_or_join", "_get_or_wait")),
    Edit(
        "has a comment",
        commented("def _lead(", "TODO: give the loader a timeout?"),
    ),
    Edit(
        "logs what it clears",
        edit(
            "TTLCache.clear",
            "_release(self._when_swept(self._clear_locked), self._on_evict)",
            '_log.debug("clear")\n_release(self._when_swept(self._clear_locked), self._on_evict)',
        ),
    ),
]

ASYNC_TTL_CACHE = [
    Edit(
        "evicts by writes and not by use",
        replace("AsyncTTLCache.get", "newer is not order:", "False:"),
        "AC-1",
    ),
    Edit(
        "cancels the load with the first caller who leaves",
        edit(
            "AsyncTTLCache._abandon",
            "load.waiters or load.refreshes or (load.task and load.task.done())",
            "load.refreshes or (load.task and load.task.done())",
        ),
        "AC-2",
        "AC-1 AC-4 AC-6",
    ),
    Edit(
        "takes a lock to delete",
        edit("", "import asyncio", "import asyncio\nimport threading")
        + edit(
            "AsyncTTLCache.__init__",
            "self._loop: asyncio.AbstractEventLoop | None = None",
            "self._loop: asyncio.AbstractEventLoop | None = None\nself._lock = threading.Lock()",
        )
        + edit(
            "AsyncTTLCache.delete",
            "self._loads.pop(key, None)",
            "with self._lock:\n    self._loads.pop(key, None)",
        ),
        "AC-3",
    ),
    Edit(
        "does not wait for what it cancels",
        edit("AsyncTTLCache.__aexit__", "await asyncio.wait(ending)", "break"),
        "AC-4",
        "AC-6",
    ),
    Edit(
        "belongs to whoever uses it",
        edit(
            "AsyncTTLCache._bind",
            "if self._loop is not None and self._loop.is_running(): ...",
            "",
        ),
        "AC-5",
    ),
    Edit(
        "tells nobody what it deletes",
        edit("AsyncTTLCache.delete", "self._tell()", ""),
        "AC-6",
    ),
    Edit(
        "swallows the cancellation of a loader",
        replace("_run", "except Exception", "except BaseException"),
        "AC-2",
        "AC-4",
    ),
    Edit(
        "does not look for circles",
        edit("_refuse_circle", "if _waits_for_caller(load): ...", ""),
        "AC-2 AC-6",
        file="caches/ttl_cache",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private method by another name", renamed("_abandon", "_give_up")),
]

SHARDED_CACHE = [
    Edit(
        "chooses the shard by the remainder",
        edit(
            "ShardedCache._shard",
            "self._shards[mixed * len(self._shards) >> _WIDTH]",
            "self._shards[hash(key) % len(self._shards)]",
        ),
        "SC-1",
    ),
    Edit(
        "rounds the shares down",
        edit("_shares", "share + (number < remainder)", "share"),
        "SC-2",
        "SC-4",
    ),
    Edit(
        "stops cleaning at the first shard that has nothing to clean",
        edit(
            "ShardedCache.cleanup_expired",
            "return sum(shard.cleanup_expired() for shard in self._shards)",
            "removed = 0\n"
            "for shard in self._shards:\n"
            "    if not (found := shard.cleanup_expired()):\n"
            "        break\n"
            "    removed += found\n"
            "return removed",
        ),
        "SC-3",
    ),
    Edit(
        "does not pass on the time to live",
        edit(
            "ShardedCache.set",
            "self._shard(key).set(key, value, ttl)",
            "self._shard(key).set(key, value)",
        ),
        "SC-4",
    ),
    Edit(
        "clears the first shard and returns",
        edit("ShardedCache.clear", "shard.clear()", "return shard.clear()"),
        "SC-3 SC-4",
    ),
    Edit(
        "tells equal keys apart by their type",
        edit("ShardedCache._shard", "hash((key, 0))", "hash((key, type(key)))"),
        "SC-1",
        "SC-4",
    ),
    Edit(
        "gives each shard the whole room",
        edit(
            "_shares",
            "[share + (number < remainder) for number in range(num_shards)]",
            "[max_size] * num_shards",
        ),
        "SC-2 SC-4",
    ),
    Edit(
        "deletes without the lock",
        edit(
            "TTLCache.delete", "self._locked(self._delete_locked, key)", "self._delete_locked(key)"
        ),
        "SC-4",
        file="caches/ttl_cache",
    ),
    Edit("has another layout", unparsed()),
    Edit("has a comment", commented("def _shard(", "Do not use id(): equal keys must meet.")),
]

EDITS = {
    "caches/ttl_cache": TTL_CACHE,
    "caches/async_ttl_cache": ASYNC_TTL_CACHE,
    "caches/sharded_cache": SHARDED_CACHE,
}
