// Loaded before Helia. Its WebRTC transport needs a native module that npm
// builds or downloads in an install script, which is not run; these tests
// speak TCP, so an empty stand-in is enough to load the rest.
import { registerHooks } from 'node:module'

const NAME = '@ipshipyard/node-datachannel'
const SOURCE = `
  class Absent { constructor () { throw new Error('WebRTC is not part of these tests') } }
  export { Absent as PeerConnection, Absent as IceUdpMuxListener, Absent as RTCPeerConnection }
  export { Absent as RTCSessionDescription, Absent as RTCIceCandidate }
  export default {}
`

registerHooks({
  resolve (specifier, context, next) {
    if (specifier !== NAME && !specifier.startsWith(`${NAME}/`)) return next(specifier, context)
    return { url: `data:text/javascript,${encodeURIComponent(SOURCE)}`, format: 'module', shortCircuit: true }
  }
})
