/** Members of the payload an event must have, with these very values. */
export type Filters = Readonly<Record<string, string | number | boolean>>;

const MAX_KEYS = 10;
const MAX_VALUE_CHARS = 256;

/** The key of no filters at all. */
export const UNFILTERED = "[]";

/**
 * One text per meaning: filters that ask for the same have the same key, and {@link filtersOf} gives them back.
 *
 * @throws RangeError where the server would refuse them.
 */
export function filterKey(filters: Filters): string {
  const pairs = Object.entries(filters);
  if (pairs.length > MAX_KEYS) throw new RangeError(`${pairs.length} filters are more than ${MAX_KEYS}.`);
  for (const [key, value] of pairs) {
    if (!isScalar(value)) throw new RangeError(`The filter ${key} must be a text, a number or a boolean.`);
    if ([...String(value)].length > MAX_VALUE_CHARS) {
      throw new RangeError(`The filter ${key} is longer than ${MAX_VALUE_CHARS} characters.`);
    }
  }
  return JSON.stringify(pairs.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The filters a key stands for. */
export function filtersOf(key: string): Filters {
  return Object.fromEntries(JSON.parse(key));
}

/** Whether every filter is a member of the payload with the same value; `"1"` is not `1`. */
export function matches(filters: Filters, payload: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(filters).every(
    ([key, value]) => Object.hasOwn(payload, key) && payload[key] === value,
  );
}

function isScalar(value: unknown): boolean {
  return typeof value === "string" || typeof value === "boolean" || Number.isFinite(value);
}
