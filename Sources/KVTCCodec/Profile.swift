/// What calibration learned about one model.
public final class Profile: Sendable {
    /// SHA-256 of the file.
    public let id: ProfileID
    /// The tensors it was calibrated for.
    public let geometry: Geometry
    /// The model's name, for people.
    public let model: String

    init(id: ProfileID, geometry: Geometry, model: String) {
        self.id = id
        self.geometry = geometry
        self.model = model
    }
}
