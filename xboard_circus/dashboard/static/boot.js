// A page whose scripts did not come (the dashboard was replaced in that moment) would be dead: it loads itself again.

const AGAIN_AFTER = 2000;

document.addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLScriptElement) setTimeout(() => location.reload(), AGAIN_AFTER);
  },
  true,
);
