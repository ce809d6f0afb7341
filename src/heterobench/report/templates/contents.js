// The list of contents: folded on a small screen, and everywhere it marks the section that is being read.
{
  const nav = document.getElementById("contents");
  const button = nav.querySelector("button");
  const links = new Map([...nav.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const fold = (open) => {
    nav.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", () => fold(!nav.classList.contains("open")));
  nav.addEventListener("click", (event) => event.target.closest("a") && fold(false));
  document.addEventListener("keydown", (event) => event.key === "Escape" && fold(false));
  document.addEventListener("click", (event) => nav.contains(event.target) || fold(false));
  const parts = [...document.querySelectorAll("section.part")];
  const mark = () => {
    const edge = innerHeight / 4;
    const reached = parts.filter((part) => part.getBoundingClientRect().top < edge);
    const now = reached.length ? reached[reached.length - 1].id : "";
    links.forEach((link, id) => (id === now ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    button.querySelector(".now").textContent = now ? links.get(now).textContent : "Contents";
  };
  let waiting = false;
  addEventListener(
    "scroll",
    () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => ((waiting = false), mark()));
    },
    { passive: true },
  );
  mark();
}
