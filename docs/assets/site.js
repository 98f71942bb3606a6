/* The copy button gives the block exactly, byte for byte: Material would trim its end. */
document.addEventListener(
  "click",
  (event) => {
    const button = event.target.closest("[data-clipboard-target]")
    if (button === null) return
    const block = document.querySelector(button.dataset.clipboardTarget)
    button.setAttribute("data-clipboard-text", block.textContent)
  },
  { capture: true },
)

/* Material's search dialog has no name for those who hear the page. */
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search")

/* What scrolls sideways can be reached, and so scrolled, by keyboard. */
new MutationObserver(() => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])"))
    table.tabIndex = 0
}).observe(document.body, { childList: true, subtree: true })
