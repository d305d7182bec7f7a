// What a reader without eyes or a mouse would miss on a page: each complaint says what and where.
const found = [], article = document.querySelector("article"), words = (node) => node.textContent.trim().slice(0, 60);
if (document.documentElement.lang !== "en") found.push("the page has no language");
if (document.querySelectorAll("h1").length !== 1 && article) found.push("not one h1");
let level = 0;
for (const heading of document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")) {
  const its = Number(heading.tagName[1]);
  if (its > level + 1) found.push(`h${its} after h${level}: ${words(heading)}`);
  level = its;
}
for (const image of document.images) {
  if (!image.complete || !image.naturalWidth) found.push("an image does not load: " + image.src);
  if (!image.alt.trim()) found.push("an image without alt: " + image.src);
  const box = image.getBoundingClientRect();
  if (box.width && (box.left < 0 || box.right > document.documentElement.clientWidth + 1) && image.closest("article"))
    found.push("an image is cut: " + image.src.slice(0, 120));
}
for (const link of document.querySelectorAll("a[href], button"))
  if (!words(link) && !link.getAttribute("aria-label") && !link.title && !link.querySelector("img[alt]"))
    found.push("a link or button without words: " + link.outerHTML.slice(0, 120));
for (const table of document.querySelectorAll("article table"))
  if (!table.querySelector("th")) found.push("a table without header cells: " + words(table));
for (const field of document.querySelectorAll("input:not([type=hidden]):not([type=checkbox])"))
  if (!field.labels.length && !field.getAttribute("aria-label") && !field.placeholder)
    found.push("a field without a name: " + field.outerHTML.slice(0, 120));
return found;
