// Reads a dataset by docs/format.md alone: node read.mjs FOLDER. Checks every hash, then prints counts as JSON.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { tableFromIPC } from 'apache-arrow'

const folder = process.argv[2]
const sha256 = name => createHash('sha256').update(readFileSync(join(folder, name))).digest('hex')
const fail = message => { console.error(`${folder}: ${message}`); process.exit(1) }

const seal = readFileSync(join(folder, 'dataset.json.sha256'), 'utf8').split(' ')[0]
if (sha256('dataset.json') !== seal) fail('dataset.json is not what was written')
const dataset = JSON.parse(readFileSync(join(folder, 'dataset.json'), 'utf8'))
if (dataset.schema_version !== 1) fail(`schema version ${dataset.schema_version}, expected 1`)
for (const [name, { sha256: expected, bytes }] of Object.entries(dataset.files)) {
  if (readFileSync(join(folder, name)).length !== bytes || sha256(name) !== expected) fail(`${name} is damaged`)
}

// One file a table, or the parts of a large one in order.
const open = name => {
  const files = Object.keys(dataset.files).filter(file => new RegExp(`^${name}(-\\d{5})?\\.arrow$`).test(file)).sort()
  return files.map(file => tableFromIPC(readFileSync(join(folder, file)))).reduce((table, part) => table?.concat(part) ?? part, null)
}
const table = open('transitions') ?? open('responses')
const episodes = open('episodes')

// Labels are of units: the rows themselves, or whole episodes.
const units = dataset.unit === 'episode' ? episodes : table
const counts = { accepted: 0, rejected: 0, unlabelled: 0 }
for (const label of units.getChild('label')) counts[label === null ? 'unlabelled' : label ? 'accepted' : 'rejected'] += 1

// The observation after row r is that of row r + 1, or the episode's final one.
let moved = 0
if (episodes) {
  const observation = table.getChild('observation')
  const distance = (a, b) => Math.hypot(...Array.from(a, (value, i) => value - b[i]))
  for (const { start, length, final_observation: final } of episodes) {
    const first = Number(start)
    for (let step = 0; step < length; step += 1) {
      const next = step + 1 < length ? observation.get(first + step + 1).toArray() : final.toArray()
      moved += distance(observation.get(first + step).toArray(), next)
    }
  }
}
console.log(JSON.stringify({ id: dataset.id, rows: table.numRows, episodes: episodes?.numRows ?? 0, ...counts, moved }))
