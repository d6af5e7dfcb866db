// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The trading contract of the BaaS paper, its two functions written plainly (contracts.md 10).
/// @notice One record a trade, one payment a trade, nothing packed and nothing batched: the yardstick that
/// `edgora reproduce baas.table3` measures beside the paper's printed gas. Never deployed by the platform.
contract PaperTrading {
    error PaperTradingNotTheUser(uint256 trade);
    error PaperTradingAlreadyPaid(uint256 trade);
    error PaperTradingWrongPayment(uint256 trade, uint256 price);
    error PaperTradingPaymentFailed(uint256 trade);

    event TradeCreated(uint256 indexed trade, address indexed user, address indexed server);
    event TradePaid(uint256 indexed trade, uint256 price);

    struct Trade {
        address user;
        address server;
        uint256 data;
        uint256 work;
        uint256 price;
        uint256 deadline;
        uint256 paidAt;
    }

    mapping(uint256 trade => Trade) public trades;
    uint256 public count;

    /// @notice The paper's CreationTrade: the user records what it wants done, by whom, and for how much.
    function creationTrade(address server, uint256 data, uint256 work, uint256 price, uint256 deadline)
        external
        returns (uint256 trade)
    {
        trade = ++count;
        trades[trade] = Trade(msg.sender, server, data, work, price, deadline, 0);
        emit TradeCreated(trade, msg.sender, server);
    }

    /// @notice The paper's Trading: the user pays the server for a trade.
    function trading(uint256 trade) external payable {
        Trade storage found = trades[trade];
        if (found.user != msg.sender) revert PaperTradingNotTheUser(trade);
        if (found.paidAt != 0) revert PaperTradingAlreadyPaid(trade);
        if (found.price != msg.value) revert PaperTradingWrongPayment(trade, found.price);
        found.paidAt = block.timestamp;
        emit TradePaid(trade, msg.value);
        (bool sent,) = found.server.call{value: msg.value}("");
        if (!sent) revert PaperTradingPaymentFailed(trade);
    }
}
