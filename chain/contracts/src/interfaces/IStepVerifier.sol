// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Segment} from "../libraries/Transcript.sol";

/// @title Step verifier
/// @notice Decides by recomputation that a segment is wrong, for one family of programs. A task names its verifier, or
/// none; whoever stakes agrees to it.
/// @dev Stateless and free of errors is best: whatever it does besides answering true refutes nothing.
interface IStepVerifier {
    /// @notice Whether `proof` shows that the program, run as the spec says, does not lead from the segment's start to
    /// its end.
    function refutes(bytes32 programDigest, bytes32 specDigest, Segment calldata segment, bytes calldata proof)
        external
        view
        returns (bool);
}
