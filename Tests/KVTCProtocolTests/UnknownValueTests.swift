import KVTCModel
import KVTCProtocol
import Testing

/// Every field of every message that holds a case of an enumeration: what is no case is refused and named.
@Suite struct UnknownValueTests {
    struct Field: CustomTestStringConvertible {
        let message: any WireMessage
        let offset: Int
        let known: [UInt8]
        let name: String

        init<Case: RawRepresentable<UInt8> & CaseIterable>(
            _ message: any WireMessage, at offset: Int, _ name: String, _: Case.Type, but excluded: [UInt8] = []
        ) {
            self.message = message
            self.offset = offset
            self.name = name
            known = Case.allCases.map(\.rawValue).filter { !excluded.contains($0) }
        }

        var testDescription: String { "\(type(of: message)).\(name)" }
    }

    private static let open = OpenSessionRequest(
        name: "", tensors: [TensorGeometry(layer: 0, role: .key, heads: 1, headDim: 8)],
        layout: PageLayout(element: .f16), policy: Policy())
    private static let identified = OpenIdentifiedSessionRequest(open, identity: [])

    static let fields: [Field] =
        [open as any WireMessage, identified].flatMap { message in
            [
                // Behind an empty name, an empty profile and the number of tensors: 14 bytes of tensor.
                Field(message, at: 14, "geometry.tensors.role", Role.self),
                Field(message, at: 30, "layout.element", Element.self),
                Field(message, at: 31, "layout.order", PageLayout.Order.self),
                Field(message, at: 32, "layout.grouping", PageLayout.Grouping.self),
                Field(message, at: 46, "policy.mode", Mode.self, but: [Mode.raw.rawValue]),
                Field(message, at: 47, "policy.qualityKind", Quality.Kind.self),
            ]
        } + [
            Field(SetPolicyRequest(session: 1, policy: Policy()), at: 12, "policy.mode", Mode.self, but: [0]),
            Field(SetPolicyRequest(session: 1, policy: Policy()), at: 13, "policy.qualityKind", Quality.Kind.self),
            Field(GetPolicyReply(policy: Policy(), tokens: 1), at: 8, "policy.mode", Mode.self, but: [0]),
            Field(GetPolicyReply(policy: Policy(), tokens: 1), at: 9, "policy.qualityKind", Quality.Kind.self),
            Field(LookupReply(lease: 0, leadingRun: 1, residence: [.raw]), at: 16, "residence", Residence.self),
            Field(PushReply(outcomes: [.stored]), at: 4, "outcomes", PushOutcome.self),
            Field(
                LookupBlocksReply(
                    lease: 0, leadingRun: 1, pages: [StoredPage(residence: .raw, mode: .raw, tokens: 1, length: 1)]),
                at: 16, "pages.residence", Residence.self),
            Field(
                PullPart(entry: 0, layerBegin: 0, layerEnd: 1, outcome: .miss, offset: 0, length: 0), at: 8, "outcome",
                PullOutcome.self),
            Field(TouchRequest(session: 1, keys: []), at: 4, "pin", PinAction.self),
            Field(ProfileRequest(action: .list), at: 0, "action", ProfileAction.self),
        ]

    @Test(arguments: fields) func unknownValuesAreRefused(field: Field) throws {
        let body = field.message.encodedBody
        #expect(field.known.contains(body[field.offset]))
        for value in UInt8.min...UInt8.max {
            var changed = body
            changed[field.offset] = value
            if field.known.contains(value) {
                #expect(try decode(like: field.message, changed).encodedBody == changed)
            } else {
                let error = #expect(throws: WireError.self) { try decode(like: field.message, changed) }
                #expect(error?.code == .invalidField && error?.field == field.name, "\(value)")
            }
        }
    }

    // 0 is known, as no style at all.
    @Test func unknownRotationsAreRefused() throws {
        let rotary = Rotary(style: .halfSplit, dims: 2, inverseFrequencies: [1])
        var open = Self.open
        open.tensors[0].rotary = rotary
        var body = open.encodedBody
        for style in UInt8.min...UInt8.max where Rotary.Style(rawValue: style) == nil {
            body[15] = style
            let error = #expect(throws: WireError.self) { try OpenSessionRequest(body: body) }
            #expect(error?.code == .invalidField)
            #expect(error?.field == (style == 0 ? "geometry.ropeTable" : "geometry.tensors.rotaryStyle"))
        }
        body[15] = Rotary.Style.interleaved.rawValue
        #expect(try OpenSessionRequest(body: body).tensors[0].rotary?.style == .interleaved)
        // Of two bytes at the end of the tensor: which table.
        body[24] = 1
        let error = #expect(throws: WireError.self) { try OpenSessionRequest(body: body) }
        #expect(error?.code == .invalidField && error?.field == "geometry.ropeTable")
    }
}
