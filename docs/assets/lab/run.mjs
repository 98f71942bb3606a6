/* Runs a block of a page, and says below it what it printed, or that its assertions held. */
import { make, styled } from "./page.mjs"
import { Python } from "./python.mjs"

const python = new Python()
let busy = Promise.resolve() // one block at a time, in the order of the clicks

/** Run `text`; what comes of it is told in `place`. */
export function run(text, place, button) {
  button.disabled = true
  busy = busy.then(() => one(text, place)).finally(() => (button.disabled = false))
  return busy
}

async function one(text, place) {
  await styled()
  place.textContent = python.version ? "Running …" : "Fetching Python (6 MB) …"
  const running = (news) => news.kind === "begun" && (place.textContent = "Running …")
  try {
    const { printed, error, threads } = await python.ask("run_block", { text }, running)
    const told = error || (printed ? "" : "All its assertions held.")
    const schedule = threads ? "; of its threads, which are modelled, this was one schedule" : ""
    const version = `Python ${python.version.version} in your browser${schedule}.`
    place.replaceChildren(
      ...(printed ? [make("pre", {}, [make("code", { textContent: printed })])] : []),
      make("p", { className: error ? "lab-bad" : "", textContent: told }),
      make("p", { className: "lab-told", textContent: version }),
    )
  } catch (error) {
    place.textContent = error.message
  }
}

/* Instant navigation puts another page in the place of this one. */
globalThis.document$?.subscribe(() => python.end(""))
