// A verifier of exports (JSON lines) written from docs/ledger.md alone: node verify.mjs PUBLIC_KEY EXPORT
// Prints the number of entries, or what is wrong; exit status 0 or 1. It does not accept exports of a time window.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [, , publicKey, path] = process.argv;
const raw = Buffer.from(publicKey, "base64");
const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
const key = createPublicKey({ key: spki, format: "der", type: "spki" });
const digest = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest("hex");
const keyId = digest(raw).slice(0, 16);
const ZEROS = "0".repeat(64);

const wrong = (what) => {
  console.log(what);
  process.exit(1);
};
const check = (holds, what) => holds || wrong(what);
const signed = (record, text, what) =>
  check(
    record.key === keyId && verify(null, Buffer.from(text), key, Buffer.from(record.signature, "base64")),
    `${what}: signature`,
  );

const records = readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const header = records.shift();
check(header.kind === "header" && header.format === "atalaya-ledger-1" && !header.since && !header.until, "header");
const filtered = header.principal !== "" || header.model !== "";

let checkpoint = { number: 0, hash: ZEROS };
let chain = null;
let entries = 0;
const claims = new Map();
const chainOf = (writer) => {
  if (chain?.writer === writer) return chain;
  check(chain === null || chain.ended, `${chain?.writer}: no head`);
  chain = { writer, seq: 0, hash: ZEROS, id: "", ended: false };
  return chain;
};
const meetClaim = (place) => {
  const claim = claims.get(place.writer);
  if (claim === undefined || claim.seq > place.seq) return;
  check(claim.seq < place.seq || claim.hash === place.hash, `${place.writer} ${place.seq}: a checkpoint names another`);
  claims.delete(place.writer);
};

const steps = {
  stump(record) {
    signed(record, ["atalaya-ledger-stump-1", record.writer, record.seq, record.hash, record.at].join("\n"), "stump");
    if (record.writer === "checkpoints") {
      checkpoint = { number: record.seq, hash: record.hash };
    } else {
      Object.assign(chainOf(record.writer), { seq: record.seq, hash: record.hash });
      meetClaim(chain);
    }
  },
  checkpoint(record) {
    const text = ["atalaya-ledger-checkpoint-1", record.number, record.at, record.previous, record.heads].join("\n");
    check(record.number === checkpoint.number + 1 && record.previous === checkpoint.hash, `checkpoint ${record.number}`);
    check(record.hash === digest(text), `checkpoint ${record.number}: hash`);
    signed(record, text, `checkpoint ${record.number}`);
    for (const line of record.heads.split("\n")) {
      const [writer, seq, hash] = line.split(" ");
      check(!(Number(seq) <= claims.get(writer)?.seq), `checkpoint ${record.number}: ${writer} was cut back`);
      claims.set(writer, { seq: Number(seq), hash });
    }
    checkpoint = record;
  },
  entry(record) {
    const place = chainOf(record.writer);
    const name = `${record.writer} ${record.seq}`;
    check(!place.ended && record.seq === place.seq + 1 && record.id > place.id, `${name}: order`);
    const { writer, seq, id, at, commitment } = record;
    const text = ["atalaya-ledger-entry-1", writer, seq, id, at, commitment, place.hash].join("\n");
    check(record.hash === digest(text), `${name}: hash`);
    if (record.erasure !== null) {
      check(record.payload === null, `${name}: erased, and there`);
      signed(record.erasure, ["atalaya-ledger-erasure-1", id, commitment, record.erasure.at].join("\n"), name);
    } else if (record.payload !== null) {
      const { salt, document, principal, model, status } = record.payload;
      check(commitment === digest(Buffer.from(salt, "hex"), document), `${name}: commitment`);
      const said = JSON.parse(document);
      const full = said.model ? `${said.model.name}-v${said.model.version}` : "";
      check(said.id === id && said.at === at && said.principal === principal, `${name}: document`);
      check(full === model && said.status === status, `${name}: columns`);
    } else {
      check(filtered, `${name}: payload`);
    }
    Object.assign(place, { seq, hash: record.hash, id });
    meetClaim(place);
    entries += 1;
  },
  head(record) {
    const place = chainOf(record.writer);
    const { writer, seq, hash } = record;
    check(!place.ended && seq === place.seq && hash === place.hash, `${writer}: head`);
    signed(record, ["atalaya-ledger-head-1", writer, seq, hash, record.checkpoint].join("\n"), `${writer}: head`);
    check(record.checkpoint <= checkpoint.number, `${writer}: head of a later checkpoint`);
    meetClaim(place);
    place.ended = true;
  },
};

for (const record of records) (steps[record.kind] ?? wrong)(record);
check(chain === null || chain.ended, "the last chain: no head");
check(claims.size === 0, `missing: ${[...claims.keys()]}`);
console.log(entries);
