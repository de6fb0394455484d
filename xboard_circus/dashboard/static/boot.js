// A page whose scripts or styles did not come (the dashboard was replaced in that moment) would be dead, or bare: it
// loads itself again. It stands in the page itself, since the loss of one file is often the loss of several.

document.addEventListener(
  "error",
  ({ target }) => {
    if (target instanceof HTMLScriptElement || target.rel === "stylesheet") setTimeout(() => location.reload(), 2000);
  },
  true,
);
