/** How long something has been so, in the largest unit that fits. */
export function duration(seconds: number): string {
  const units = [
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
  ] as const;
  for (const [unit, size] of units) {
    const count = Math.floor(seconds / size);
    if (count > 0) return `${count} ${unit}${count === 1 ? "" : "s"}`;
  }
  return "moments";
}

/** With a full stop, so that another sentence can follow. */
export function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** `department_admin` → `department admin`. */
export function words(identifier: string): string {
  return identifier.replaceAll("_", " ");
}

/** At most `limit` characters, with a sign where some are missing. */
export function shorten(text: string, limit: number): string {
  const all = [...text];
  return all.length <= limit ? text : `${all.slice(0, limit - 1).join("")}…`;
}
