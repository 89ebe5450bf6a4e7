"use strict";
for (const select of document.querySelectorAll("select[data-sorts]")) {
  const list = document.getElementById(select.dataset.sorts);
  const sort = () => {
    const [key, way] = select.value.split(" ");
    const of = (item) => Number(item.dataset[key]) * (way === "down" ? -1 : 1);
    list.append(...[...list.children].sort((a, b) => of(a) - of(b)));
  };
  select.addEventListener("change", sort);
  sort();
}
for (const button of document.querySelectorAll(".tile button")) {
  button.addEventListener("click", () => {
    const large = button.closest(".tile").classList.toggle("large");
    button.setAttribute("aria-expanded", String(large));
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
