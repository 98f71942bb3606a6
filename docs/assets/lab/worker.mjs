/* One Python in one worker. The page ends the worker when it is stopped, or no longer heard of. */
import { loadPyodide } from "./vendor/pyodide.mjs"

const jspi = "Suspending" in WebAssembly
let ready

async function boot() {
  const began = performance.now()
  const [python, archive] = await Promise.all([
    loadPyodide(),
    fetch(new URL("lab.zip", import.meta.url)).then((response) => response.arrayBuffer()),
  ])
  python.unpackArchive(archive, "zip", { extractDir: "/lab" })
  python.runPython("import sys; sys.path.insert(0, '/lab')")
  const glue = {
    search: python.pyimport("search").search,
    run_block: python.pyimport("blocks").run_block,
  }
  const version = python.runPython("import platform; platform.python_version()")
  const ms = Math.round(performance.now() - began)
  postMessage({ kind: "ready", version, pyodide: python.version, ms })
  return { python, glue }
}

onmessage = async ({ data }) => {
  try {
    const { python, glue } = await (ready ??= boot())
    if (data.call === "start") return
    postMessage({ kind: "begun" })
    const tell = (news) =>
      postMessage(typeof news === "number" ? { kind: "progress", schedules: news } : { kind: news })
    const call = glue[data.call]
    // callPromising: each thread of a model is a stack that can be suspended.
    const run = jspi ? call.callPromising.bind(call) : call
    // As JSON, in which None is null and comes back as None.
    const result = JSON.parse(await run(JSON.stringify(data.request), tell))
    postMessage({ kind: "result", result })
  } catch (error) {
    // Of a traceback, the last line says what happened.
    postMessage({ kind: "died", text: String(error.message ?? error).trim().split("\n").at(-1) })
  }
}
