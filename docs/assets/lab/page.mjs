/* What the lab and the Run buttons make of a page's elements. */

/** An element with its properties and what is in it. */
export function make(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties)
  if (properties.role) element.setAttribute("role", properties.role)
  element.append(...children)
  return element
}

let sheet
/** Load the lab's style sheet, once. */
export function styled() {
  sheet ??= new Promise((resolve, reject) => {
    const href = new URL("lab.css", import.meta.url).href
    const link = make("link", { rel: "stylesheet", href, onload: resolve, onerror: reject })
    document.head.append(link)
  })
  return sheet
}
