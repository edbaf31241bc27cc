// Tables as CSV files, offline: texts that lie in the page, or rows that a view has, saved from a blob.
// Text cells that a spreadsheet would compute get an apostrophe in front, as in csv_text.py.
"use strict";
const Csv = (() => {
  const cell = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = (columns, rows) => [columns, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  const save = (name, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "text/csv;charset=utf-8" }));
    link.download = `${name.replace(/[^\w.-]+/g, "_").slice(0, 80) || "table"}.csv`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  // A button that saves the current result of `make() -> [name, text]`.
  const button = (title, make) => {
    const node = document.createElement("button");
    Object.assign(node, { type: "button", className: "csv", textContent: title });
    node.addEventListener("click", () => save(...make()));
    return node;
  };
  document.querySelectorAll("button[data-table]").forEach((node) => node.addEventListener("click", () => {
    const table = JSON.parse(document.getElementById(node.dataset.table).textContent);
    save(table.name, table.text);
  }));
  return { text, save, button };
})();
