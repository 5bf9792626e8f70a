// Draws the tables and charts of an exported page from the JSON in it. Nothing is fetched; texts are set as text.

(async () => {
  const root = document.documentElement;
  const only = new URLSearchParams(location.search).get("only"); // ?only=c1: this table or chart alone, to embed
  const kept = (() => { try { return localStorage.getItem("hkd-theme"); } catch { return null; } })();
  if (kept) root.dataset.theme = kept;
  document.getElementById("theme").onclick = () => {
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try { localStorage.setItem("hkd-theme", root.dataset.theme); } catch { /* files may have no storage */ }
  };
  for (const block of document.querySelectorAll("pre")) {
    const copy = document.createElement("button");
    copy.textContent = "Copy";
    copy.className = "copy";
    copy.onclick = async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      copy.textContent = "Copied";
    };
    block.appendChild(copy);
  }
  const parts = JSON.parse(document.getElementById("data").textContent);
  if (only && parts[only]) {
    root.classList.add("only");
    let part = document.getElementById(only);
    part.classList.add("chosen");
    for (let up = part; up; up = up.parentElement) up.classList.add("way");
  }
  for (const [id, part] of Object.entries(parts)) {
    if (part.kind !== "table") continue;
    const made = document.createElement("div");
    window.hkdTable({ data: part.data, parentElement: made, setTriggerValue: () => {} });
    document.getElementById(id).querySelector(".here").replaceChildren(made.cloneNode(true)); // without its handlers
  }
  for (const link of document.querySelectorAll(".here a")) {
    const to = link.getAttribute("href");
    if (to) continue;
    link.replaceWith(...link.childNodes); // its page isn't in the folder
  }
  if (!window.hkdVega) return;
  const urls = {};
  let last;
  for (const [name, text] of window.hkdVega.modules) {
    const linked = text.replace(/(["'`])\.\/([\w.-]+\.js)\1/g, (all, quote, other) => urls[other] ? JSON.stringify(urls[other]) : all);
    last = urls[name] = URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
  }
  const embed = (await import(last))[window.hkdVega.name].default;
  for (const [id, part] of Object.entries(parts)) {
    if (part.kind !== "chart" || (only && id !== only)) continue;
    const place = document.getElementById(id).querySelector(".here");
    await embed(place, part.spec, { actions: false, renderer: "svg", loader: { load: () => Promise.reject(new Error("nothing is fetched")) } });
  }
})();
