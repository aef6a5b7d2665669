"use strict";
// The page's own script. Text from the run reaches the page by textContent alone.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;

  // ── themes: the system's, until the button is used ──────────────────────────────────────────────────────────────
  const button = document.getElementById("theme");
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const nameTheme = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  systemDark.addEventListener("change", nameTheme);
  nameTheme();
  button.hidden = false;

  // ── plots ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const tip = document.getElementById("tooltip");
  const showTip = (_handler, event, _item, value) => {
    tip.hidden = !value;
    if (!value) return;
    const list = document.createElement("dl");
    for (const [name, text] of Object.entries(value)) {
      const term = document.createElement("dt");
      const figure = document.createElement("dd");
      term.textContent = name;
      figure.textContent = text;
      list.append(term, figure);
    }
    tip.replaceChildren(list);
    const right = event.clientX + 14 + tip.offsetWidth > root.clientWidth;
    const below = event.clientY + 14 + tip.offsetHeight > root.clientHeight;
    tip.style.left = `${Math.max(4, right ? event.clientX - tip.offsetWidth - 10 : event.clientX + 14)}px`;
    tip.style.top = `${Math.max(4, below ? event.clientY - tip.offsetHeight - 10 : event.clientY + 14)}px`;
  };

  // The panels of a plot share its specification: Vega-Lite compiles it for the first of them.
  const compiled = {};
  const specOf = (plot, { values, height }, known) => {
    if (!known) {
      const datasets = { [data.dataset]: values };
      return { mode: "vega-lite", spec: { ...plot.spec, datasets, height: height ?? plot.spec.height } };
    }
    const tables = known.data.map((each) => (each.name === data.dataset ? { ...each, values } : each));
    return { mode: "vega", spec: { ...known, data: tables, height: height ?? known.height } };
  };

  const draw = async (place) => {
    const id = place.dataset.plot;
    const plot = data.plots[id];
    const { mode, spec } = specOf(plot, plot.panels[Number(place.dataset.panel)], compiled[id]);
    const config = mode === "vega" ? {} : data.config;  // what is compiled has it in it
    // ast: expressions are interpreted, so that the page can forbid eval.
    const options = { ast: true, actions: false, config, defaultStyle: false, mode, renderer: "svg", tooltip: showTip };
    const { vgSpec } = await window.vegaEmbed(place, spec, options);
    compiled[id] ??= vgSpec;
  };

  const drawAll = async () => {
    for (const place of document.querySelectorAll(".plot")) {
      try {
        await draw(place);
      } catch (error) {
        place.textContent = `This plot could not be drawn: ${error}`;
        console.error(error);
      }
      await new Promise((resume) => setTimeout(resume));  // the page stays usable meanwhile
    }
    root.dataset.plots = "drawn";
  };

  // ── the table: sort and filter ──────────────────────────────────────────────────────────────────────────────────
  const MOST = 500;  // rows at a time
  const table = document.getElementById("table");
  const openTable = () => {
    const body = table.tBodies[0];
    const linesOf = (rows) => Array.from(rows, (row) => (
      // What the columns show, and what they do not: the id, the device's name, doubts.
      { row, keys: JSON.parse(row.dataset.keys), text: `${row.textContent} ${row.dataset.words}`.toLowerCase().replace(/\s+/g, " ") }
    ));
    const listed = linesOf(body.rows);
    // The rows of a large run are groups: its cells wait until they are looked for.
    const every = document.getElementById("every");
    const cells = every ? linesOf(every.content.children) : listed;
    const headers = Array.from(table.tHead.rows[0].cells);

    const compare = (one, other) => (
      typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true })
    );
    const sort = (column, direction) => {
      const sign = direction === "ascending" ? 1 : -1;
      const order = (a, b) => {
        const [one, other] = [a.keys[column], b.keys[column]];
        if (one === null || other === null) return (one === null) - (other === null);  // what is missing comes last
        return sign * compare(one, other);
      };
      for (const lines of new Set([listed, cells])) lines.sort(order);
      headers.forEach((header, index) => header.setAttribute("aria-sort", index === column ? direction : "none"));
      show();
    };
    headers.forEach((header, column) => {
      const first = header.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      header.querySelector("button").addEventListener("click", () => {
        sort(column, header.getAttribute("aria-sort") === first ? second : first);
      });
    });

    const words = document.getElementById("filter");
    const status = document.getElementById("status");
    const shown = document.getElementById("shown");
    const show = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const lines = wanted.length || status.value ? cells : listed;
      const found = lines.filter(({ row, text }) => (
        wanted.every((word) => text.includes(word)) && (!status.value || row.dataset.status === status.value)
      ));
      body.replaceChildren(...found.slice(0, MOST).map(({ row }) => row));
      const cut = found.length > MOST ? `, the first ${MOST} are listed` : "";
      shown.textContent = `${found.length}${lines === cells ? "" : " groups"} of ${cells.length} cells${cut}`;
    };
    words.addEventListener("input", show);
    status.addEventListener("change", show);
    words.form.addEventListener("submit", (event) => event.preventDefault());
    words.form.hidden = false;
  };

  if (table) openTable();
  drawAll();
})();
