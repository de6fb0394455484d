// Language and theme: kept in cookies, so that the server renders the page as it was chosen.

const YEAR = 31536000;

function remember(name, value) {
  // The path of the page: two dashboards on one host, below different prefixes, do not share it.
  const path = location.pathname.replace(/[^/]*$/, "");
  document.cookie = `${name}=${encodeURIComponent(value)}; path=${path}; max-age=${YEAR}; SameSite=Strict`;
}

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/** Make the two controls of the page work. */
export function offerSettings() {
  document.getElementById("language").addEventListener("change", (event) => {
    remember("xboard_language", event.target.value);
    location.reload();
  });
  document.getElementById("theme").addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = wanted;
    remember("xboard_theme", wanted);
  });
}
