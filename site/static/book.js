// What scrolls sideways, and only that, is a stop for the Tab key: arrow keys then move it.
function markWhatScrolls() {
  for (const box of document.querySelectorAll("article :is(pre, .table-wrapper, .cell_output, .output, div.math)")) {
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("load", markWhatScrolls);
addEventListener("resize", markWhatScrolls);
