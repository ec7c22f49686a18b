"use strict";
// Draws the plots of each data set's section from the page's JSON; the slider moves their marks.
// The JSON's fields are described in study/report/data.py.

const DASHES = { vanilla: "dot", constant: "dash", wise: "solid" };
const MARKERS = { vanilla: "square", constant: "diamond", wise: "circle" };
const INK = "#1b2330", SOFT = "#566072", GRID = "#e8ebf0";
const WHITE_TO_BLUE = [[0, "#ffffff"], [0.7, "#8cc0de"], [1, "#005a8c"]];
const TOUCH = matchMedia("(pointer: coarse)").matches;
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };

const pct = (value) => `${value.toFixed(1)} %`;
const exitName = (point) => (point === "full" ? "full network" : point.replace("exit", "exit "));
const spread = ([, std]) => (std === null ? "" : ` ± ${std.toFixed(1)}`);

/** Ticks of a log axis at 1, 2 and 5 times powers of ten. */
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of [1, 2, 5]) ticks.push(Number((digit * 10 ** power).toPrecision(1)));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** A class name whose line may break inside it: BodyWeight|Squats. */
const breakable = (name) => name.split(/(?<=[a-z_])(?=[A-Z])/).flatMap((part, n) => (n ? [document.createElement("wbr"), part] : [part]));

/** An element with text or children. */
function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...[content].flat());
  return made;
}

function layout(x, y, more = {}) {
  const axis = { gridcolor: GRID, zeroline: false, linecolor: "#9aa3b2", tickcolor: "#9aa3b2" };
  return {
    font: { family: "Inter, system-ui, sans-serif", size: 12, color: INK },
    margin: { l: 52, r: 12, t: 12, b: 46 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    dragmode: TOUCH ? false : "zoom", // a finger on a plot scrolls the page
    hoverlabel: { bgcolor: "#fff", bordercolor: GRID, font: { color: INK } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    ...more,
    xaxis: { ...axis, automargin: true, ...x },
    yaxis: { ...axis, automargin: true, ...y },
  };
}

/** One data set's section: its state is the chosen method, combination and threshold. */
class Section {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.shown = new Set(data.combinations);
    this.method = data.first_method;
    this.combination = "wise";
    this.slider = root.querySelector(".threshold");
    this.slider.value = data.first_step;
    this.choose("method");
    this.choose("combination");
    this.slider.addEventListener("input", () => {
      this.tell();
      // Events come faster than plots are drawn: at most one drawing a frame.
      if (!this.waiting) this.waiting = requestAnimationFrame(() => this.mark());
    });
    for (const box of root.querySelectorAll(".lines input")) {
      box.addEventListener("change", () => {
        this.shown[box.checked ? "add" : "delete"](box.value);
        this.drawTradeOff();
      });
    }
    this.draw();
  }

  /** All selects of one kind in the section show and set the same choice. */
  choose(kind) {
    const selects = this.root.querySelectorAll(`select.${kind}`);
    for (const select of selects) {
      select.value = this[kind];
      select.addEventListener("change", () => {
        this[kind] = select.value;
        for (const other of selects) other.value = select.value;
        this.draw();
      });
    }
  }

  get step() {
    return Number(this.slider.value);
  }

  get curve() {
    return this.data.curves[this.method][this.combination];
  }

  plot(name, traces, layoutOfIt) {
    return Plotly.react(this.root.querySelector(`[data-plot=${name}]`), traces, layoutOfIt, CONFIG);
  }

  draw() {
    this.tell();
    this.drawTradeOff();
    this.drawShares();
    this.drawExits();
    this.drawWeights();
    this.drawConfusion();
    this.listMistakes();
  }

  /** Moves the slider's marks on the plots: the ring, always the last trace, and the line. */
  mark() {
    this.waiting = 0;
    const { curve, step } = this;
    const tradeOff = this.root.querySelector("[data-plot=trade-off]");
    const at = { x: [[curve.gmacs[step][0]]], y: [[curve.top1[step][0]]] };
    Plotly.restyle(tradeOff, at, [tradeOff.data.length - 1]);
    const threshold = this.data.thresholds[step];
    const line = { "shapes[0].x0": threshold, "shapes[0].x1": threshold };
    Plotly.relayout(this.root.querySelector("[data-plot=shares]"), line);
  }

  /** The numbers at the slider. */
  tell() {
    const { curve, step, data } = this;
    const threshold = data.thresholds[step];
    const full = data.gmacs[data.gmacs.length - 1];
    const say = (name, text) => {
      this.root.querySelector(`[data-live=${name}]`).textContent = text;
    };
    say("threshold", String(threshold));
    this.slider.setAttribute("aria-valuetext", String(threshold));
    say("top1", pct(curve.top1[step][0]));
    say("top1-std", spread(curve.top1[step]));
    say("gmacs", curve.gmacs[step][0].toFixed(2));
    say("cost", pct((100 * curve.gmacs[step][0]) / full));
    if (this.root.querySelector("[data-live=ms]")) {
      const [decode, network] = curve.ms ? curve.ms[step].map((ms) => ms.toFixed(1)) : ["–", "–"];
      say("ms", `${decode} + ${network}`);
    }
    const rows = data.points.map((point, d) => {
      const share = curve.share[step][d];
      const bar = element("span", "", { class: "bar" });
      bar.style.width = `${share}%`;
      bar.style.background = data.tones[d];
      const name = element("th", exitName(point), { scope: "row" });
      return element("tr", [name, element("td", bar), element("td", pct(share))]);
    });
    this.root.querySelector("[data-live=shares]").replaceChildren(...rows);
    const chosen = `${data.labels[this.method]}, ${data.combination_labels[this.combination]}`;
    this.root.querySelector(".shown").textContent = chosen;
  }

  drawTradeOff() {
    const { data } = this;
    const traces = [];
    data.methods.forEach((method, m) => {
      for (const combination of data.combinations.filter((name) => this.shown.has(name))) {
        const curve = data.curves[method][combination];
        const policy = data.policies[method][combination];
        const order = curve.gmacs.map((_, t) => t).sort((a, b) => curve.gmacs[a][0] - curve.gmacs[b][0]);
        const name = `${data.labels[method]}, ${data.combination_labels[combination]}`;
        const at = "%{y:.1f} % at %{x:.3g} GMACs";
        traces.push({
          x: order.map((t) => curve.gmacs[t][0]),
          y: order.map((t) => curve.top1[t][0]),
          text: order.map((t) => `threshold ${data.thresholds[t]}`),
          hovertemplate: `${name}<br>${at}<br>%{text}<extra></extra>`,
          mode: "lines",
          line: { color: data.colours[m], dash: DASHES[combination], width: combination === "wise" ? 2.2 : 1.4 },
          showlegend: false,
          legendgroup: method,
        }, {
          x: [policy.gmacs], y: [policy.top1],
          hovertemplate: `${name}, calibrated<br>${at}<extra></extra>`,
          mode: "markers",
          marker: { color: data.colours[m], symbol: MARKERS[combination], size: 8, line: { color: "#fff", width: 1 } },
          showlegend: false,
          legendgroup: method,
        });
      }
      // Stands for the method in the legend, whichever lines are shown.
      traces.push({
        x: [null], y: [null], mode: "lines", name: data.labels[method], legendgroup: method,
        line: { color: data.colours[m], width: 3 },
      });
    });
    const last = data.points.length - 1;
    traces.push({
      x: [data.gmacs[last]], y: [data.exits[data.methods[0]].vanilla[last][0]],
      hovertemplate: "full network<br>%{y:.1f} % at %{x:.3g} GMACs<extra></extra>",
      mode: "markers", marker: { symbol: "star", size: 13, color: INK }, showlegend: false,
    }, {
      x: [this.curve.gmacs[this.step][0]], y: [this.curve.top1[this.step][0]],
      hoverinfo: "skip", mode: "markers", showlegend: false,
      marker: { symbol: "circle-open", size: 18, color: INK, line: { width: 3 } },
    });
    const costs = data.gmacs.map((gmacs, d) => ({
      type: "line", x0: gmacs, x1: gmacs, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { color: "#c9cfd9", width: 1 },
      label: { text: data.points[d].replace("exit", ""), textposition: "end", textangle: 0, yanchor: "top", font: { size: 10, color: SOFT } },
    }));
    const low = 0.85 * data.gmacs[0], high = 1.15 * data.gmacs[last];
    const x = {
      type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: logTicks(low, high),
      title: { text: "mean GMACs per video (log scale)" },
    };
    this.plot("trade-off", traces, layout(x, { title: { text: "test top-1 (%)" } }, { shapes: costs }));
  }

  drawShares() {
    const { curve, data } = this;
    const traces = data.points.map((point, d) => ({
      x: data.thresholds,
      y: curve.share.map((shares) => shares[d]),
      name: exitName(point),
      mode: "lines", stackgroup: "exits", fillcolor: data.tones[d], line: { width: 0.5, color: "#fff" },
      hovertemplate: `${exitName(point)}: %{y:.1f} %<extra></extra>`,
    }));
    const at = data.thresholds[this.step];
    const line = { type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: data.colours[1], width: 2.5 } };
    const more = { hovermode: "x unified", shapes: [line] };
    more.legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal", itemclick: false };
    const y = { title: { text: "share of clips (%)" }, range: [0, 100] };
    this.plot("shares", traces, layout({ title: { text: "threshold" }, range: [0, 1] }, y, more));
  }

  drawExits() {
    const { data } = this;
    const traces = data.methods.map((method, m) => {
      const scores = data.exits[method][this.combination];
      return {
        // Side by side around the exit's number, so that error bars do not cover each other.
        x: data.points.map((_, d) => d + 0.12 * (m - (data.methods.length - 1) / 2)),
        y: scores.map(([mean]) => mean),
        error_y: { type: "data", array: scores.map(([, std]) => std ?? 0), thickness: 1.4, width: 4 },
        mode: "markers", name: data.labels[method],
        marker: { color: data.colours[m], size: 9, symbol: ["circle", "square", "diamond", "triangle-up", "x", "cross"][m] },
        customdata: scores.map((score) => spread(score)),
        hovertemplate: `${data.labels[method]}: %{y:.1f}%{customdata} %<extra></extra>`,
      };
    });
    const x = { tickvals: data.points.map((_, d) => d), ticktext: data.points.map((p) => p.replace("exit", "exit ")), showgrid: false };
    this.plot("exits", traces, layout(x, { title: { text: "test top-1 (%)" } }));
  }

  drawWeights() {
    const { data } = this;
    const weights = data.weights[this.method];
    const trace = {
      type: "heatmap", z: weights, x: data.outputs, y: data.points.map(exitName),
      text: weights.map((row) => row.map((beta) => (beta === null ? "" : beta.toFixed(2)))),
      texttemplate: "%{text}", colorscale: WHITE_TO_BLUE, zmin: 0, xgap: 2, ygap: 2,
      hovertemplate: "%{x} at %{y}: %{z:.3f}<extra></extra>", hoverongaps: false, showscale: false,
    };
    const x = { showgrid: false, title: { text: "output" } };
    const y = { autorange: "reversed", showgrid: false };
    this.plot("weights", [trace], layout(x, y));
  }

  drawConfusion() {
    const { data } = this;
    const counts = data.confusion[this.method];
    const shares = counts.map((row) => {
      const total = row.reduce((sum, count) => sum + count, 0);
      return row.map((count) => (total ? (100 * count) / total : 0));
    });
    const few = data.classes.length <= 12;
    const trace = {
      type: "heatmap", z: shares, x: data.classes, y: data.classes, customdata: counts,
      ...(few && { texttemplate: "%{z:.0f}" }),
      colorscale: WHITE_TO_BLUE, zmin: 0, zmax: 100, xgap: few ? 2 : 0, ygap: few ? 2 : 0,
      hovertemplate: "%{y} taken for %{x}: %{z:.1f} % (%{customdata})<extra></extra>", showscale: !few,
      colorbar: { thickness: 10, outlinewidth: 0 },
    };
    const axis = { showgrid: false, type: "category", showticklabels: data.classes.length <= 30 };
    const x = { ...axis, tickangle: -45, title: { text: "taken for", standoff: 8 } };
    const y = { ...axis, autorange: "reversed", title: { text: "true class", standoff: 8 } };
    this.plot("confusion", [trace], layout(x, y));
  }

  listMistakes() {
    const { data } = this;
    const points = data.points.map((point) => point.replace("exit", "exit "));
    const head = ["true class", "taken for", "all", ...points];
    const cells = head.map((text, c) => element("th", text, { scope: "col", class: c < 2 ? "text" : "" }));
    const rows = data.mistakes[this.method].map(([wanted, taken, counts]) => {
      const total = counts.reduce((sum, count) => sum + count, 0);
      return element("tr", [
        element("th", breakable(wanted), { scope: "row" }),
        element("td", breakable(taken), { class: "text" }),
        element("td", String(total)),
        ...counts.map((count) => element("td", count ? String(count) : "")),
      ]);
    });
    const table = this.root.querySelector(".mistakes");
    table.tHead.replaceChildren(element("tr", cells));
    table.tBodies[0].replaceChildren(...rows);
  }
}

const report = JSON.parse(document.getElementById("report-data").textContent);
for (const data of report) new Section(document.getElementById(data.id), data);
