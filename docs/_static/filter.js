// A filter above each table of class "filterable"; a click on a heading sorts by that column.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.filterable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const field = document.createElement("input");
    const count = document.createElement("span");
    field.type = "search";
    field.className = "filter";
    field.placeholder = "Filter: resnet cifar10";
    field.setAttribute("aria-label", "Filter the table");
    count.className = "matches";
    count.setAttribute("aria-live", "polite");
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length}`;
    };
    field.addEventListener("input", filter);
    filter();
    const holder = table.closest(".table-wrapper") ?? table;
    holder.before(field, count);
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      let direction = 1;
      const value = (row) => row.cells[column].textContent.trim();
      const number = (text) => parseFloat(text.replace(/,/g, ""));
      heading.title = "Sort";
      heading.addEventListener("click", () => {
        const numeric = heading.classList.contains("number");
        rows.sort((a, b) => direction * (numeric
          ? (number(value(a)) || 0) - (number(value(b)) || 0)
          : value(a).localeCompare(value(b), undefined, { numeric: true })));
        direction = -direction;
        body.append(...rows);
      });
    });
  }
});
