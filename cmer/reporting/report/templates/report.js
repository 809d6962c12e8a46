"use strict";
// Pages of runs by the address's fragment, pictures when they are first needed, sorting and filtering of tables, theme.
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const overview = document.getElementById("overview");

function show() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const page = target && target.classList.contains("page") ? target : null;
  document.querySelectorAll(".page").forEach((each) => { each.hidden = each !== page; });
  overview.hidden = page !== null;
  if (page) {
    page.querySelectorAll("img[data-picture]:not([src])").forEach((img) => { img.src = pictures[img.dataset.picture]; });
    scrollTo(0, 0);
  } else if (target) target.scrollIntoView();
}
addEventListener("hashchange", show);
show();

function compare(one, other) {
  const difference = Number(one) - Number(other);
  return Number.isNaN(difference) ? one.localeCompare(other) : difference;
}
document.querySelectorAll("table.results").forEach((table) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const key = (row) => row.cells[column].dataset.key || row.cells[column].textContent.trim();
    const first = rows.some((row) => key(row) !== "" && !Number.isNaN(Number(key(row)))) ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    const order = heading.ariaSort === first ? second : first;
    headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const empty = (row) => key(row) === "";  // last in either order
    rows.sort((a, b) => (empty(a) || empty(b) ? empty(a) - empty(b) : sign * compare(key(a), key(b))));
    body.append(...rows);
  }));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-link]");
    if (row && !event.target.closest("a") && !getSelection().toString()) location.hash = row.dataset.link;
  });
});

document.querySelectorAll("form.filters").forEach((form) => {
  const rows = [...form.parentElement.querySelector("table.results").tBodies[0].rows];
  const update = () => {
    const found = form.elements.find.value.trim().toLowerCase();
    let count = 0;
    rows.forEach((row) => {
      const chosen = [...form.querySelectorAll("select")].every((select) =>
        select.value === "" || row.getAttribute(`data-${select.name.replace("_", "-")}`) === select.value);
      const kind = !row.classList.contains("paper") || !form.elements.paper || form.elements.paper.checked;
      row.hidden = !(chosen && kind && row.textContent.toLowerCase().includes(found));
      count += !row.hidden;
    });
    form.querySelector("output").textContent = `${count} of ${rows.length} rows`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});

const theme = document.getElementById("theme");
function paint(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  theme.ariaPressed = String(dark);
}
theme.addEventListener("click", () => paint(document.documentElement.dataset.theme !== "dark"));
paint(matchMedia("(prefers-color-scheme: dark)").matches);
