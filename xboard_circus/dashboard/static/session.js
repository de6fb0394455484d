// The session of this browser. No cookie: browsers send those to every port of this host, so to other users' servers,
// too. What is stored here, only pages of this address, with its port, can read.

const KEY = `xboard_session ${location.pathname.replace(/[^/]*$/, "")}`;

export const session = localStorage.getItem(KEY) ?? "";
export const keep = (text) => localStorage.setItem(KEY, text);
export const forget = () => localStorage.removeItem(KEY);

/** The header that proves it. */
export const PROOF = { Authorization: `Bearer ${session}` };

/** Whether who is signed in may change anything. */
export const MAY_ACT = session.startsWith("admin-");
