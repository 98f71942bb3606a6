/* The search index is fetched once the search is used, not with every page. It stands before the
   theme's bundle, which asks for the index as it starts: that request waits here. */
{
  const { open, send } = XMLHttpRequest.prototype
  const asked = new Promise((resolve) => {
    if (new URLSearchParams(location.search).has("q")) resolve()
    document.addEventListener("focusin", (event) => {
      if (event.target.closest?.("[data-md-component=search]")) resolve()
    })
  })
  const waiting = new WeakSet()
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    if (String(url).endsWith("/search/search_index.json")) waiting.add(this)
    return open.call(this, method, url, ...rest)
  }
  XMLHttpRequest.prototype.send = function (body) {
    if (waiting.has(this)) asked.then(() => send.call(this, body))
    else send.call(this, body)
  }
}
